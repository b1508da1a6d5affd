"""Maps of LPIPS features: the published distance, and how unusual the features of image and reconstruction are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lpips_oracles import random_weights
from scipy.spatial.distance import mahalanobis
from torch import Tensor

from twostage.features import FeaturePair, feature_pair, fit_gaussian, lpips_map, unusual_map
from twostage.lpips import LPIPS, load_lpips_weights

CHANNELS = (3, 2, 4, 5, 2)
SIZE = (6, 8)


@pytest.fixture(scope="module")
def random_lpips() -> LPIPS:
    return LPIPS(random_weights())


def images(channels: int, height: int = 70, width: int = 90) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels)
    first, second = torch.rand(2, channels, height, width, generator=generator)
    return first, second


def normal_pair(seed: int, size: tuple[int, int] = SIZE, *, mean: float = 0.5, noise: float = 0.1) -> FeaturePair:
    """Features of the right number of layers, those of the reconstruction close to those of the image."""
    generator = torch.Generator().manual_seed(seed)
    image = tuple(mean + torch.randn(channels, *size, generator=generator) for channels in CHANNELS)
    return FeaturePair(image, tuple(layer + noise * torch.randn(layer.shape, generator=generator) for layer in image))


def stacked(pairs: Sequence[FeaturePair], layer: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """What a layer of all pairs holds, [pixels, 2 c]."""
    joined = [torch.cat((pair.image[layer], pair.reconstruction[layer])).flatten(1).T for pair in pairs]
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]] = torch.cat(joined).double().numpy()
    return values


# ---------------------------------------------------------------- what is normal


@settings(max_examples=20)
@given(st.integers(1, 4), st.floats(-2, 2), st.floats(0.01, 1))
def test_the_gaussian_is_that_of_numpy_with_a_floor(count: int, mean: float, noise: float) -> None:
    pairs = [normal_pair(seed, mean=mean, noise=noise) for seed in range(count)]
    found = fit_gaussian(pairs)
    assert len(found.means) == len(found.whitening) == 4  # all layers but the first
    for index, (average, whitening) in enumerate(zip(found.means, found.whitening, strict=True)):
        values = stacked(pairs, index + 1)
        covariance = np.cov(values.T, bias=True)
        floor = 0.1 * covariance.diagonal().mean() * np.eye(len(covariance))
        np.testing.assert_allclose(average.numpy(), values.mean(axis=0), atol=1e-5)
        precision = (whitening.T @ whitening).double().numpy()
        np.testing.assert_allclose(precision @ (covariance + floor), np.eye(len(covariance)), atol=2e-3)


def test_images_of_different_sizes_count_by_their_pixels() -> None:
    small, large = normal_pair(0, (3, 3)), normal_pair(1, (12, 20))
    np.testing.assert_allclose(
        fit_gaussian([small, large]).means[0].numpy(), stacked([small, large], 1).mean(axis=0), atol=1e-5
    )


def test_features_that_never_answer_do_no_harm() -> None:
    silent = tuple(torch.zeros(channels, *SIZE) for channels in CHANNELS)
    normal = fit_gaussian([FeaturePair(silent, silent)])
    assert torch.equal(unusual_map(FeaturePair(silent, silent), normal, SIZE), torch.zeros(SIZE))
    loud = tuple(torch.ones(channels, *SIZE) for channels in CHANNELS)
    assert bool(unusual_map(FeaturePair(loud, loud), normal, SIZE).isfinite().all())


def test_a_gaussian_moves_between_devices_whole() -> None:
    moved = fit_gaussian([normal_pair(0)]).to(torch.device("meta"))
    assert {tensor.device.type for tensor in (*moved.means, *moved.whitening)} == {"meta"}


# ---------------------------------------------------------------- what is unusual


def test_the_map_is_the_mahalanobis_distance_of_scipy() -> None:
    pairs = [normal_pair(seed) for seed in range(3)]
    unseen = normal_pair(9)
    found = unusual_map(unseen, fit_gaussian(pairs), SIZE)
    accepted = np.zeros(SIZE[0] * SIZE[1])
    for layer in range(1, 5):
        values = stacked(pairs, layer)
        covariance = np.cov(values.T, bias=True)
        precision = np.linalg.inv(covariance + 0.1 * covariance.diagonal().mean() * np.eye(len(covariance)))
        accepted += [
            mahalanobis(pixel, values.mean(axis=0), precision) ** 2 / values.shape[1]
            for pixel in stacked([unseen], layer)
        ]
    np.testing.assert_allclose(found.numpy().ravel(), accepted, rtol=1e-3)


def test_unseen_normal_images_average_near_one_for_each_layer() -> None:
    """A little below where the floor adds to the variance."""
    normal = fit_gaussian(normal_pair(seed, (40, 40), noise=1.0) for seed in range(4))
    values = torch.stack([unusual_map(normal_pair(seed, noise=1.0), normal, (30, 40)) for seed in range(50, 60)])
    assert 0.8 * 4 < values.mean() < 1.0 * 4


def test_a_strange_place_stands_out_where_it_is() -> None:
    normal = fit_gaussian(normal_pair(seed, (20, 20)) for seed in range(4))
    unseen = normal_pair(9, (20, 20))
    unseen.image[2][:, 4:8, 10:14] += 8.0
    found = unusual_map(unseen, normal, (40, 40))
    assert found[10:14, 22:26].min() > 2 * found[20:].max()


def test_image_and_reconstruction_that_do_not_belong_together_are_unusual() -> None:
    """Though each of them is as normal as can be."""
    normal = fit_gaussian(normal_pair(seed, (20, 20)) for seed in range(4))
    one, other = normal_pair(8, (20, 20)), normal_pair(9, (20, 20))
    together = unusual_map(one, normal, (20, 20)).mean()
    exchanged = unusual_map(FeaturePair(one.image, other.reconstruction), normal, (20, 20)).mean()
    assert exchanged > 2 * together


# ---------------------------------------------------------------- LPIPS


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_both_images_are_those_of_lpips(random_lpips: LPIPS, channels: int) -> None:
    image, other = images(channels)
    pair = feature_pair(random_lpips, image, other)
    for found, shown in ((pair.image, image), (pair.reconstruction, other)):
        accepted = random_lpips.features(shown.unsqueeze(0))
        torch.testing.assert_close(found, tuple(layer[0] for layer in accepted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_lpips_map_is_that_of_lpips(random_lpips: LPIPS, channels: int) -> None:
    image, other = images(channels)
    found = lpips_map(random_lpips, feature_pair(random_lpips, image, other), (70, 90))
    accepted = random_lpips(image.unsqueeze(0), other.unsqueeze(0), reduction="none")[0, 0]
    torch.testing.assert_close(found, accepted, rtol=1e-4, atol=1e-6)


def test_the_lpips_map_is_that_of_lpips_with_the_published_weights(lpips_weights: Path) -> None:
    lpips = LPIPS(load_lpips_weights(lpips_weights))
    image, other = images(3)
    found = lpips_map(lpips, feature_pair(lpips, image, other), (70, 90))
    accepted = lpips(image.unsqueeze(0), other.unsqueeze(0), reduction="none")[0, 0]
    torch.testing.assert_close(found, accepted, rtol=1e-4, atol=1e-6)


def test_equal_images_have_no_lpips_distance(random_lpips: LPIPS) -> None:
    image, _ = images(1)
    assert not lpips_map(random_lpips, feature_pair(random_lpips, image, image.clone()), (70, 90)).any()
