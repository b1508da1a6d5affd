"""AW-SSIM and SSIM are what Eq. 2-8 say, to the last useful digit, on images that are kind to no formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from similarity_cases import (
    TERMS,
    THIRDS,
    WEIGHTS,
    assert_close,
    assert_gradient_close,
    backend_cases,
    exact_maps,
    numeric_pairs,
    score,
    value_and_gradients,
)
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import aw_ssim, ssim

BACKENDS = pytest.mark.parametrize(("device", "backend"), backend_cases("aw_ssim"))
SSIM_BACKENDS = pytest.mark.parametrize(("device", "backend"), backend_cases("ssim"))
PADDINGS = pytest.mark.parametrize("padding", ["valid", "same"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
PAIRS = numeric_pairs()


def images(*shape: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x, 0.5 * x + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64)


# --- Eq. 2-8 -------------------------------------------------------------------------------------------------------


@PADDINGS
@DTYPES
@BACKENDS
def test_additive_map_is_the_papers_formula(device: str, backend: str, dtype: torch.dtype, padding: str) -> None:
    x, y = (image.to(device, dtype) for image in images(2, 2, 12, 13))
    sigma = [0.7, 2.5]
    luminance, contrast, structure, _ = exact_maps(x, y, sigma, padding=padding)
    for alpha, beta, gamma in WEIGHTS.values():
        got = aw_ssim(
            x,
            y,
            sigma=torch.tensor(sigma, dtype=dtype, device=device),
            weights=(alpha, beta, gamma),
            padding=padding,  # type: ignore[arg-type]
            reduction="none",
            backend=backend,
        )
        assert_close(got, alpha * luminance + beta * contrast + gamma * structure, "similarity value", dtype)


@PADDINGS
@DTYPES
@SSIM_BACKENDS
def test_product_map_is_the_classic_formula(device: str, backend: str, dtype: torch.dtype, padding: str) -> None:
    x, y = (image.to(device, dtype) for image in images(1, 2, 12, 13))
    *_, product = exact_maps(x, y, [1.5], padding=padding)
    got = ssim(x, y, padding=padding, reduction="none", backend=backend)  # type: ignore[arg-type]
    assert_close(got, product, "similarity value", dtype)


@BACKENDS
@pytest.mark.parametrize(("window_size", "shape"), [(1, (3, 4)), (3, (5, 4)), (5, (5, 9)), (9, (10, 11))])
def test_window_range_and_constants_enter_as_documented(
    device: str, backend: str, window_size: int, shape: tuple[int, int]
) -> None:
    x, y = (255 * image.to(device) for image in images(1, 1, *shape))
    constants = {"window_size": window_size, "data_range": 255.0, "k1": 0.05, "k2": 0.2}
    luminance, contrast, structure, product = exact_maps(x, y, [1.1], **constants)  # type: ignore[arg-type]
    arguments = {**constants, "sigma": 1.1, "reduction": "none", "backend": backend}
    assert_close(
        aw_ssim(x, y, weights=(0.2, 0.5, 0.3), **arguments),  # type: ignore[arg-type]
        0.2 * luminance + 0.5 * contrast + 0.3 * structure,
        "similarity value",
        x.dtype,
    )
    if backend in (case.values[1] for case in backend_cases("ssim") if case.values[0] == device):
        assert_close(ssim(x, y, **arguments), product, "similarity value", x.dtype)  # type: ignore[arg-type]


@BACKENDS
def test_reductions_average_the_map(device: str, backend: str) -> None:
    x, y = (image.to(device) for image in images(3, 2, 12, 14))
    values = aw_ssim(x, y, reduction="none", backend=backend)
    assert values.shape == (3, 2, 2, 4)
    for reduction, expected in (("sample", values.mean(dim=(1, 2, 3))), ("mean", values.mean())):
        got = aw_ssim(x, y, reduction=reduction, backend=backend)  # type: ignore[arg-type]
        assert got.shape == expected.shape
        assert_close(got, expected, "similarity value", x.dtype)


# --- bounds --------------------------------------------------------------------------------------------------------


@st.composite
def extreme_pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """Two float32 images, each flat, black, a ramp, textured or speckled, near or far from zero, and a range."""
    data_range = draw(st.sampled_from([1.0, 255.0, 1e-3]))

    def image() -> Tensor:
        generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
        level = draw(st.sampled_from([0.0, 1e-6, 0.5, 0.98, 1.0, 100.0, 1e4])) * data_range
        amplitude = draw(st.sampled_from([0.0, 1e-7, 1e-4, 0.01, 1.0])) * data_range
        kind = draw(st.sampled_from(["noise", "ramp", "speckle", "checker"]))
        if kind == "ramp":
            pattern = torch.linspace(0, 1, 14).expand(1, 1, 13, 14)
        elif kind == "checker":
            pattern = ((torch.arange(13).view(-1, 1) + torch.arange(14)) % 2).float().view(1, 1, 13, 14)
        else:
            pattern = torch.rand(1, 1, 13, 14, generator=generator)
            pattern = (pattern > 0.98).float() if kind == "speckle" else pattern
        return level + amplitude * pattern

    x = image()
    y = x.clone() if draw(st.booleans()) else image()
    return x, y, data_range


@BACKENDS
@settings(max_examples=80)
@given(
    pair=extreme_pairs(),
    weights=st.sampled_from([None, *TERMS.values()]),
    padding=st.sampled_from(["valid", "same"]),
)
def test_never_above_one_one_for_equal_images_and_finite_gradients(
    device: str,
    backend: str,
    weights: tuple[float, float, float] | None,
    padding: str,
    pair: tuple[Tensor, Tensor, float],
) -> None:
    x, y, data_range = pair[0].to(device), pair[1].to(device), pair[2]
    values, grad_x, grad_y = value_and_gradients(
        score(weights), x, y, data_range=data_range, padding=padding, reduction="none", backend=backend
    )
    bound = tolerance("similarity bound", torch.float32)
    assert float(values.max()) <= 1 + bound
    assert bool(values.isfinite().all())
    assert bool(grad_x.isfinite().all())
    assert bool(grad_y.isfinite().all())
    if torch.equal(x, y):
        assert float((values - 1).abs().max()) <= bound


@DTYPES
@BACKENDS
def test_the_narrowest_window_is_its_centre_tap_and_the_widest_a_box(
    device: str, backend: str, dtype: torch.dtype
) -> None:
    x, y = (image.to(device, dtype) for image in images(1, 1, 12, 13))
    for sigma in (1e-30, 1e-3):
        got = aw_ssim(x, y, sigma=sigma, weights=(1.0, 2.0, 3.0), window_size=5, reduction="none", backend=backend)
        pixels = (image[..., 2:-2, 2:-2] for image in (x, y))
        expected = aw_ssim(*pixels, weights=(1.0, 2.0, 3.0), window_size=1, reduction="none", backend="reference")
        assert_close(got, expected, "similarity value", dtype)
    luminance, contrast, structure, _ = exact_maps(x, y, [1e9])
    for sigma in (1e9, 1e18):
        got = aw_ssim(x, y, sigma=sigma, weights=(0.2, 0.5, 0.3), reduction="none", backend=backend)
        assert_close(got, 0.2 * luminance + 0.5 * contrast + 0.3 * structure, "similarity value", dtype)


# --- gradients -----------------------------------------------------------------------------------------------------


@PADDINGS
@pytest.mark.parametrize("weights", [None, *TERMS.values()], ids=["ssim", *TERMS])
@pytest.mark.parametrize("equal", [False, True], ids=["different", "equal"])
def test_gradients_of_the_reference_are_the_slopes(
    weights: tuple[float, float, float] | None, padding: str, equal: bool
) -> None:
    x, y = images(2, 1, 5, 4)
    y = x.clone() if equal else y
    sigma = torch.tensor([0.6, 1.7], dtype=torch.float64)

    def function(a: Tensor, b: Tensor) -> Tensor:
        values = score(weights)(
            a, b, sigma=sigma, window_size=3, padding=padding, reduction="none", backend="reference"
        )
        # Every element counts differently, so that no two errors cancel.
        return (values * torch.arange(1, values.numel() + 1).view_as(values)).sum()

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize(
    ("weights", "padding"),
    [
        *(pytest.param(weights, "valid", id=f"{name}-valid") for name, weights in TERMS.items()),
        *(pytest.param(None, padding, id=f"ssim-{padding}") for padding in ("valid", "same")),
        pytest.param(THIRDS, "same", id="thirds-same"),
    ],
)
@pytest.mark.parametrize("name", PAIRS)
@BACKENDS
def test_float32_keeps_its_digits(
    device: str, backend: str, name: str, weights: tuple[float, float, float] | None, padding: str
) -> None:
    """Values and scaled gradients in float32 against the float64 reference, on images that cost digits elsewhere."""
    pair = PAIRS[name]
    arguments = {"data_range": pair.data_range, "padding": padding, "reduction": "none"}
    expected = value_and_gradients(score(weights), pair.x.double(), pair.y.double(), backend="reference", **arguments)
    got = value_and_gradients(score(weights), pair.x.to(device), pair.y.to(device), backend=backend, **arguments)
    assert_close(got[0], expected[0], "similarity value", torch.float32)
    scale = expected[0].numel() * pair.data_range
    for gradient, truth in zip(got[1:], expected[1:], strict=True):
        hard = backend != "reference" and name in ("flat and textured", "black and textured", "tiny range")
        bound = "fused gradient, flat beside textured" if hard else "similarity gradient"
        assert_gradient_close(gradient, truth, scale, torch.float32, bound)
