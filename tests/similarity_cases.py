"""What the tests of the similarity ops share: Eq. 2-8 taken literally, image pairs, and which backends there are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import available_backends, aw_ssim, ssim

Array = NDArray[np.float64]

THIRDS = (1 / 3, 1 / 3, 1 / 3)
TERMS = {"luminance": (1.0, 0.0, 0.0), "contrast": (0.0, 1.0, 0.0), "structure": (0.0, 0.0, 1.0)}
WEIGHTS = {**TERMS, "thirds": THIRDS, "uneven": (0.2, 0.5, 0.3)}


def backend_cases(op: str) -> list[Any]:
    """(device, backend) for every backend of ``op`` that can run here, as pytest parameters."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [
        pytest.param(device, backend, id=f"{device}-{backend}")
        for device in devices
        for backend in available_backends(op, device)
    ]


def value_tolerance(device: str, backend: str, name: str = "similarity value") -> str:
    """The tolerance of a map's pixels where windows may be little more than their centres, by sigma, mask or size."""
    return "streamed value, few pixels" if (device, backend) == ("cuda", "native") else name


def skip_what_is_not_taken(error: ValueError) -> None:
    """Skip the test if the backend says that it does not take these arguments."""
    if "does not take this" in str(error):
        pytest.skip(str(error))


def exact_terms(
    x: Array, y: Array, sigma: float, window_size: int, padding: str, data_range: float, k1: float, k2: float
) -> tuple[Array, Array, Array, Array]:
    """Luminance, contrast, structure (Eq. 2-5) and classic SSIM (Eq. 6) of one plane, window by window.

    In contrast and structure both images carry one common noise of variance (1e-4 * data_range)**2; classic SSIM has
    no need of it.
    """
    half = window_size // 2
    if padding == "same":
        x, y = np.pad(x, half), np.pad(y, half)
    offset = np.arange(window_size) - half
    window = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2.0 * sigma**2))
    window /= window.sum()
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    noise = (1e-4 * data_range) ** 2
    rows, columns = x.shape[0] - window_size + 1, x.shape[1] - window_size + 1
    terms = np.empty((4, rows, columns))
    for i in range(rows):
        for j in range(columns):
            a, b = x[i : i + window_size, j : j + window_size], y[i : i + window_size, j : j + window_size]
            mu_x, mu_y = (window * a).sum(), (window * b).sum()
            var_x, var_y = (window * (a - mu_x) ** 2).sum(), (window * (b - mu_y) ** 2).sum()
            cov = (window * (a - mu_x) * (b - mu_y)).sum()
            root = np.sqrt((var_x + noise) * (var_y + noise))
            luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
            contrast = (2 * root + c2) / (var_x + var_y + 2 * noise + c2)
            structure = (cov + noise + c2 / 2) / (root + c2 / 2)
            product = luminance * (2 * cov + c2) / (var_x + var_y + c2)
            terms[:, i, j] = luminance, contrast, structure, product
    return terms[0], terms[1], terms[2], terms[3]


def exact_maps(
    x: Tensor,
    y: Tensor,
    sigma: list[float],
    window_size: int = 11,
    padding: str = "valid",
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> tuple[Array, Array, Array, Array]:
    """:func:`exact_terms` of every plane of a batch, each of shape [B, C, H', W']."""
    planes = [
        [
            exact_terms(a, b, sigma[i], window_size, padding, data_range, k1, k2)
            for a, b in zip(*(image[i].double().cpu().numpy() for image in (x, y)), strict=True)
        ]
        for i in range(len(x))
    ]
    luminance, contrast, structure, product = (
        np.array([[plane[term] for plane in sample] for sample in planes]) for term in range(4)
    )
    return luminance, contrast, structure, product


@dataclass(frozen=True)
class Pair:
    """Two float32 images and the range they are meant for."""

    x: Tensor
    y: Tensor
    data_range: float = 1.0


def numeric_pairs(size: int = 24) -> dict[str, Pair]:
    """Image pairs that cost digits in float32: flat, flat beside edges, far from zero, black, equal."""
    generator = torch.Generator().manual_seed(20)
    shape = (2, 1, size, size)

    def rand() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def flat(level: float) -> Tensor:
        return torch.full(shape, level, dtype=torch.float64)

    ramp = torch.linspace(0, 1, size, dtype=torch.float64).expand(shape)
    texture = rand()
    lines = flat(0.3)
    lines[..., 4::9] = 0.9
    pairs = {
        "ordinary": (rand(), rand(), 1.0),
        "constant": (flat(0.3), flat(0.6), 1.0),
        "equal constant": (flat(0.3), flat(0.3), 1.0),
        "0.5 + 1e-4 noise": (0.5 + 1e-4 * noise(), 0.5 + 1e-4 * noise(), 1.0),
        "250 +- 0.02 of 255": (250 + 0.02 * noise(), 250 + 0.02 * noise(), 255.0),
        "ramp + 1e-4 noise": (ramp + 1e-4 * noise(), ramp + 1e-4 * noise(), 1.0),
        "100 + rand": (100 + rand(), 100 + rand(), 1.0),
        "10000 + rand": (1e4 + rand(), 1e4 + rand(), 1.0),
        "lines + 1e-4 noise": (lines + 1e-4 * noise(), lines + 1e-4 * noise(), 1.0),
        "flat and textured": (flat(0.5), rand(), 1.0),
        "black and textured": (flat(0.0), 255 * rand(), 255.0),
        "equal": (texture, texture, 1.0),
        "black": (flat(0.0), flat(0.0), 1.0),
        "tiny range": (1e-9 * rand(), flat(3e-10), 1e-9),
        "huge range": (1e10 * rand(), 1e10 * rand(), 1e10),
    }
    return {name: Pair(x.float(), y.float(), data_range) for name, (x, y, data_range) in pairs.items()}


def score(weights: tuple[float, float, float] | None) -> Callable[..., Tensor]:
    """``aw_ssim`` with the given weights, or ``ssim`` for None."""
    if weights is None:
        return ssim
    return lambda x, y, **arguments: aw_ssim(x, y, weights=weights, **arguments)


def value_and_gradients(
    function: Callable[..., Tensor], x: Tensor, y: Tensor, **arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The result of ``function`` and the gradient of its mean with respect to both images."""
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    value = function(x, y, **arguments)
    grad_x, grad_y = torch.autograd.grad(value.mean(), (x, y))
    return value.detach(), grad_x, grad_y


def assert_close(got: Tensor, expected: Tensor | Array, name: str, dtype: torch.dtype) -> None:
    """Every element within the tolerance called ``name``; NaN is never close."""
    difference = (got.double().cpu() - torch.as_tensor(expected).double().cpu()).abs()
    assert difference.shape == got.shape
    assert float(difference.max()) <= tolerance(name, dtype), f"{name}: off by {float(difference.max()):.3g}"


def assert_gradient_close(
    got: Tensor, expected: Tensor, scale: float, dtype: torch.dtype, name: str = "similarity gradient"
) -> None:
    """Every element of a mean's gradient, times ``scale`` (elements * data_range), within the tolerance ``name``."""
    assert got.shape == expected.shape
    expected = expected.double().cpu() * scale
    error = float((got.double().cpu() * scale - expected).abs().max())
    bound = tolerance(name, dtype) * max(1.0, float(expected.abs().max()))
    assert error <= bound, f"scaled gradient off by {error:.3g}, allowed {bound:.3g}"
