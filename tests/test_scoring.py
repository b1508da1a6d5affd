"""Score maps, their smoothing, and the score of an image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lpips_oracles import random_weights
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from twostage.features import feature_pair, fit_gaussian, lpips_map, unusual_map
from twostage.lpips import LPIPS
from twostage.scoring import Spread, base_maps, image_score, pixel_maps, resize_map, score_map, smoothed

SPREADS = {"residual": Spread(0.1, 0.02), "ssim": Spread(0.3, 0.1), "features": Spread(5.0, 2.0)}


def images(channels: int = 1, height: int = 40, width: int = 52) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(channels, height, width, generator=generator)
    return first, (first + 0.2 * torch.randn(channels, height, width, generator=generator)).clamp(0, 1)


def some_maps() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(20, 30, generator=generator) for name in ("residual", "ssim", "lpips", "features")}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_residual_is_the_mean_absolute_difference(channels: int) -> None:
    image, other = images(channels)
    found = pixel_maps(image, other)["residual"]
    np.testing.assert_allclose(found.numpy(), np.abs(image.numpy() - other.numpy()).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_ssim_map_is_that_of_scikit_image(channels: int) -> None:
    image, other = images(channels)
    found = pixel_maps(image, other)["ssim"]
    _, accepted = structural_similarity(  # type: ignore[no-untyped-call]
        image.double().numpy(),
        other.double().numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inside = (slice(5, -5), slice(5, -5))  # they continue an image beyond its border in other ways
    np.testing.assert_allclose(found[inside].numpy(), 1 - accepted.mean(axis=0)[inside], atol=1e-4)


def test_without_lpips_its_maps_are_left_out() -> None:
    assert base_maps(*images(), None, None).keys() == {"residual", "ssim"}


def test_with_lpips_its_maps_are_those_of_its_features() -> None:
    lpips = LPIPS(random_weights())
    image, other = images(height=64, width=72)
    pair = feature_pair(lpips, image, other)
    normal = fit_gaussian([feature_pair(lpips, image, image)])
    maps = base_maps(image, other, lpips, normal)
    assert maps.keys() == {"residual", "ssim", "lpips", "features"}
    torch.testing.assert_close(maps["lpips"], lpips_map(lpips, pair, (64, 72)))
    torch.testing.assert_close(maps["features"], unusual_map(pair, normal, (64, 72)))


@pytest.mark.parametrize("name", ["residual", "ssim", "lpips", "features"])
def test_a_base_map_is_taken_as_it_is(name: str) -> None:
    maps = some_maps()
    assert torch.equal(score_map(maps, name, 0, {}), maps[name])


def test_the_combined_map_is_the_sum_of_standardised_maps() -> None:
    maps = some_maps()
    accepted = (maps["residual"] - 0.1) / 0.02 + (maps["ssim"] - 0.3) / 0.1 + (maps["features"] - 5.0) / 2.0
    torch.testing.assert_close(score_map(maps, "combined", 0, SPREADS), accepted)


def test_the_combined_map_does_without_features() -> None:
    maps = {name: values for name, values in some_maps().items() if name in ("residual", "ssim")}
    accepted = (maps["residual"] - 0.1) / 0.02 + (maps["ssim"] - 0.3) / 0.1
    torch.testing.assert_close(score_map(maps, "combined", 0, SPREADS), accepted)


def test_a_map_without_spread_does_not_divide_by_nothing() -> None:
    assert bool(Spread(1.0, 0.0).standardise(torch.tensor([0.0, 1.0])).isfinite().all())


@pytest.mark.parametrize("sigma", [0.7, 2.0, 8.0])
def test_smoothing_is_a_gaussian(sigma: float) -> None:
    maps = some_maps()
    found = score_map(maps, "residual", sigma, {})
    accepted = ndimage.gaussian_filter(maps["residual"].double().numpy(), sigma, mode="nearest")
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), accepted, atol=1e-6)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200), st.floats(0, 1, exclude_min=True))
def test_the_image_score_is_the_mean_of_the_highest_values(values: list[float], fraction: float) -> None:
    count = max(1, round(len(values) * fraction))
    accepted = float(np.mean(np.sort(np.array(values, dtype=np.float64))[-count:]))
    found = image_score(torch.tensor(values).view(1, -1), fraction)
    assert found == pytest.approx(accepted, rel=1e-5, abs=1e-3)


def test_of_a_small_map_one_pixel_at_least_counts() -> None:
    assert image_score(torch.tensor([[0.1, 0.7], [0.2, 0.3]]), 1e-6) == pytest.approx(0.7)


def test_a_map_keeps_its_values_and_places_at_another_resolution() -> None:
    score = torch.linspace(0, 1, 20).expand(10, 20).contiguous()
    assert resize_map(score, (10, 20)) is score
    larger = resize_map(score, (30, 60))
    assert larger.shape == (30, 60)
    np.testing.assert_allclose(
        larger[15].numpy(), np.interp((np.arange(60) + 0.5) / 3 - 0.5, np.arange(20), score[0]), atol=1e-6
    )


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 16.0])
def test_smoothing_is_the_gaussian_filter_of_scipy(sigma: float) -> None:
    """Also where the window is larger than the map."""
    values = torch.rand(23, 40, generator=torch.Generator().manual_seed(2))
    accepted = ndimage.gaussian_filter(values.double().numpy(), sigma, mode="nearest")
    np.testing.assert_allclose(smoothed(values, sigma).numpy(), accepted, rtol=0, atol=1e-6)
