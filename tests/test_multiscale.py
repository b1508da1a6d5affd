"""Multi-scale SSIM against its definition, written out in numpy, and its refusals."""

import numpy as np
import pytest
import torch
from similarity_cases import Array, backend_cases, exact_terms
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import ms_ssim

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003


def halved(image: Array) -> Array:
    rows, columns = (side % 2 for side in image.shape)
    padded = np.pad(image, ((rows, rows), (columns, columns)))
    height, width = (side // 2 * 2 for side in padded.shape)
    return np.asarray(padded[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))


def exact_plane(x: Array, y: Array, weights: tuple[float, ...], window_size: int) -> float:
    score = 1.0
    for level, weight in enumerate(weights):
        luminance, _, _, product = exact_terms(x, y, 1.5, window_size, "valid", 1.0, 0.01, 0.03)
        coarsest = level == len(weights) - 1
        score *= max(float((product if coarsest else product / luminance).mean()), 0.0) ** weight
        x, y = halved(x), halved(y)
    return score


def images(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x, 0.6 * x + 0.3 * torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("device", "backend"), backend_cases("ssim"))
def test_levels_are_multiplied_by_channel(device: str, backend: str, dtype: torch.dtype) -> None:
    x, y = images(2, 2, 33, 38)
    planes = [
        [exact_plane(a.numpy(), b.numpy(), WEIGHTS[:3], 5) for a, b in zip(*pair, strict=True)]
        for pair in zip(x, y, strict=True)
    ]
    wanted = np.array(planes).mean(axis=1)
    got = ms_ssim(
        x.to(device, dtype),
        y.to(device, dtype),
        level_weights=WEIGHTS[:3],
        window_size=5,
        reduction="sample",
        backend=backend,
    )
    assert np.abs(got.cpu().double().numpy() - wanted).max() <= tolerance("multi-scale value", dtype)


@pytest.mark.parametrize(("device", "backend"), backend_cases("ssim"))
def test_gradient_is_the_derivative(device: str, backend: str) -> None:
    pair = [image.to(device).requires_grad_() for image in images(1, 2, 24, 23)]
    assert torch.autograd.gradcheck(
        lambda x, y: ms_ssim(x, y, level_weights=(0.4, 0.6), backend=backend), pair, atol=1e-6, fast_mode=True
    )


def test_equal_images_score_one() -> None:
    x, _ = images(1, 3, 180, 190)
    assert float(ms_ssim(x.float(), x.float())) == 1.0


def test_each_sample_has_its_sigma() -> None:
    x, y = images(2, 2, 40, 40)
    together = ms_ssim(
        x, y, sigma=torch.tensor([0.7, 2.0], dtype=torch.float64), level_weights=(0.5, 0.5), reduction="sample"
    )
    alone = [
        ms_ssim(x[i : i + 1], y[i : i + 1], sigma=sigma, level_weights=(0.5, 0.5)) for i, sigma in enumerate((0.7, 2.0))
    ]
    assert torch.equal(together, torch.stack(alone))


def test_opposite_images_score_zero_with_a_finite_gradient() -> None:
    x, _ = images(1, 1, 48, 48)
    opposite = (1 - x).requires_grad_()
    value = ms_ssim(x, opposite, level_weights=(0.5, 0.5))
    assert float(value.detach()) == 0.0
    (gradient,) = torch.autograd.grad(value, opposite)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"level_weights has 5 levels, and level 3 of the images is 10x10; accepted with padding='valid'"),
        ({"level_weights": ()}, r"level_weights is \(\); accepted: one finite number above 0 for each level"),
        ({"level_weights": (0.5, -0.5)}, r"level_weights is \(0.5, -0.5\); accepted"),
        ({"level_weights": (float("inf"),)}, r"level_weights is \(inf,\); accepted"),
        ({"level_weights": (1.0,), "reduction": "none"}, "reduction is 'none'; accepted: 'mean', 'sample'"),
        ({"level_weights": (1.0,), "window_size": 4}, "window_size is 4; accepted: an odd integer"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], message: str) -> None:
    x, y = images(1, 1, 40, 40)
    with pytest.raises(ValueError, match=message):
        ms_ssim(x, y, **arguments)  # type: ignore[arg-type]
