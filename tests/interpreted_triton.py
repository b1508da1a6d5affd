"""The Triton kernels in Triton's interpreter, on the CPU, against the reference in float64.

test_triton_similarity.py runs this file in a process of its own: Triton decides on import whether it interprets.
"""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from poisoned import poisoned_memory  # noqa: F401
from similarity_cases import THIRDS, assert_close, assert_gradient_close, numeric_pairs, value_and_gradients
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import available_backends, aw_ssim, aw_ssim_loss, ms_ssim, ssim, ssim_loss, triton_gpu

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton_similarity.py instead"

Options = dict[str, Any]
UNEVEN = (0.2, 0.5, 0.3)


def images(*shape: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    return x, 0.4 * x + 0.5 * torch.rand(shape, generator=generator)


def some_mask(*shape: int) -> Tensor:
    """Weights from 0 to 2, a third of them 0, and a corner that sees nothing."""
    generator = torch.Generator().manual_seed(7)
    mask = (3 * torch.rand(shape, generator=generator) - 1).clamp_min(0)
    mask[..., : shape[2] // 2, : shape[3] // 2] = 0
    return mask


def function_of(options: Options) -> tuple[Any, Options]:
    """The op that takes ``options``: the additive form where they hold weights, a loss where they hold an L1 term."""
    loss = "l1_weight" in options
    if "weights" in options:
        return (aw_ssim_loss if loss else aw_ssim), options
    return (ssim_loss if loss else ssim), options


def in_double(options: Options) -> Options:
    return {name: value.double() if isinstance(value, Tensor) else value for name, value in options.items()}


def assert_agrees(x: Tensor, y: Tensor, *, few_pixels: bool = False, **options: Any) -> None:
    """Value and both gradients against the reference in float64; ``few_pixels``: where windows see no more."""
    of_value = "streamed value, few pixels" if few_pixels else "similarity value"
    of_gradient = "streamed gradient, few pixels" if few_pixels else "similarity gradient"
    function, options = function_of(options)
    expected = value_and_gradients(function, x.double(), y.double(), backend="reference", **in_double(options))
    value, *gradients = value_and_gradients(function, x, y, backend="triton", **options)
    precise = torch.float64 if x.dtype == torch.float64 else torch.float32
    assert value.dtype == precise
    assert_close(value, expected[0], of_value, precise)
    cut = 0 if options.get("padding") == "same" else options.get("window_size", 11) - 1
    windows = x.shape[0] * x.shape[1] * (x.shape[2] - cut) * (x.shape[3] - cut)
    for gradient, truth in zip(gradients, expected[1:], strict=True):
        assert_gradient_close(gradient, truth, windows * options.get("data_range", 1.0), precise, of_gradient)


# --- shapes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        pytest.param((1, 1, 11, 11), "valid", id="one window"),
        pytest.param((2, 3, 13, 27), "valid", id="odd sizes"),
        pytest.param((1, 5, 12, 14), "valid", id="five channels"),
        pytest.param((2, 1, 1, 19), "same", id="one row"),
        pytest.param((2, 1, 19, 1), "same", id="one column"),
        pytest.param((1, 2, 3, 4), "same", id="smaller than the window"),
        pytest.param((2, 1, 37, 61), "valid", id="strips in both directions"),
        pytest.param((1, 2, 35, 45), "same", id="strips in both directions, padded"),
    ],
)
def test_every_shape(shape: tuple[int, ...], padding: str) -> None:
    x, y = images(*shape)
    sigma = torch.linspace(0.4, 3.0, shape[0])
    assert_agrees(x, y, weights=UNEVEN, sigma=sigma, padding=padding, reduction="none")


@pytest.mark.parametrize("window_size", [1, 3, 7, 15, 21])
def test_every_window(window_size: int) -> None:
    assert_agrees(*images(1, 2, window_size, window_size + 1), window_size=window_size, sigma=2.0)


def test_a_window_beyond_the_registers_is_refused_and_auto_goes_on() -> None:
    x, y = images(1, 1, 33, 33)
    most = triton_gpu.MOST_TAPS
    with pytest.raises(ValueError, match=f"window_size is {most + 2}; accepted for torch.float32: up to {most}"):
        ssim(x, y, window_size=most + 2, backend="triton")
    with pytest.raises(ValueError, match=r"window_size is 17; accepted for torch\.float64: up to 15"):
        ssim(x.double(), y.double(), window_size=17, backend="triton")
    assert "triton" in available_backends("ssim")
    assert_close(
        ssim(x, y, window_size=33), ssim(x, y, window_size=33, backend="reference"), "similarity value", x.dtype
    )


def test_strides_do_not_matter() -> None:
    x, y = images(2, 3, 6, 7)
    expected = value_and_gradients(aw_ssim, x, y, window_size=5, backend="triton")
    strided = x.transpose(2, 3).contiguous().transpose(2, 3), y.to(memory_format=torch.channels_last)
    got = value_and_gradients(aw_ssim, *strided, window_size=5, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_an_empty_batch_has_no_mean() -> None:
    x = torch.empty(0, 2, 12, 13, requires_grad=True)
    mean = ssim(x, x.detach(), backend="triton")
    assert bool(mean.isnan())
    mean.backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert ssim(x, x, reduction="sample", backend="triton").shape == (0,)
    assert ssim(x, x, reduction="none", backend="triton").shape == (0, 2, 2, 3)


# --- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_float64_is_computed_in_float64(padding: str) -> None:
    x, y = (image.double() for image in images(2, 1, 6, 7))
    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    options: Options = {"window_size": 5, "padding": padding, "sigma": sigma}
    assert_agrees(x, y, weights=UNEVEN, l1_weight=0.3, data_range=0.7, k1=0.013, **options)
    assert_agrees(x, y, reduction="none", **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, y = (image.to(dtype) for image in images(1, 2, 6, 7))
    x[0, 0, 0, :3] = torch.tensor([-0.0, 6e-8, 1e-5])  # zero and, in float16, subnormal numbers
    options: Options = {"window_size": 5, "reduction": "none", "backend": "triton"}
    got = value_and_gradients(aw_ssim, x, y, **options)
    expected = value_and_gradients(aw_ssim, x.float(), y.float(), **options)
    assert torch.equal(got[0], expected[0])
    for gradient, exact in zip(got[1:], expected[1:], strict=True):
        assert torch.equal(gradient, exact.to(dtype))


# --- values and gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sample", "none"])
def test_upstream_gradients_weigh_every_element(reduction: str) -> None:
    x, y = images(3, 2, 6, 7)
    weighted: list[Tensor] = []
    for dtype, backend in ((torch.float64, "reference"), (torch.float32, "triton")):
        first = x.to(dtype).requires_grad_()
        options: Options = {"weights": UNEVEN, "window_size": 5, "reduction": reduction, "backend": backend}
        values = aw_ssim(first, y.to(dtype), **options)
        upstream = torch.linspace(-2, 3, values.numel(), dtype=dtype).view_as(values)
        weighted.extend(torch.autograd.grad(values, first, upstream))
    assert_gradient_close(weighted[1], weighted[0], 1.0, torch.float32)


def test_either_image_alone_gets_the_gradient_that_both_get() -> None:
    x, y = images(1, 1, 8, 9)
    options: Options = {"weights": UNEVEN, "window_size": 5, "l1_weight": 0.4, "backend": "triton"}
    _, *both = value_and_gradients(aw_ssim_loss, x, y, **options)
    for which, expected in enumerate(both):
        pair = [x.clone(), y.clone()]
        pair[which].requires_grad_()
        (alone,) = torch.autograd.grad(aw_ssim_loss(*pair, **options), pair[which])
        assert_gradient_close(alone, expected, 4 * 5, x.dtype)


def test_losses_and_their_l1_term() -> None:
    x, y = images(2, 2, 7, 34)
    x[0, 0, 5, :9] = y[0, 0, 5, :9]  # where the difference is 0, its derivative is
    for l1_weight in (0.0, 0.25, 1.0):
        assert_agrees(x, y, window_size=5, l1_weight=l1_weight, padding="same")
    assert_agrees(255 * x, 255 * y, window_size=5, weights=UNEVEN, l1_weight=0.25, data_range=255.0)


def test_contrast_and_structure_without_luminance() -> None:
    x, y = images(1, 2, 12, 13)
    options: Options = {"level_weights": (0.3, 0.7), "window_size": 5}
    expected = value_and_gradients(ms_ssim, x.double(), y.double(), backend="reference", **options)
    got = value_and_gradients(ms_ssim, x, y, backend="triton", **options)
    assert_close(got[0], expected[0], "similarity value", x.dtype)
    for gradient, truth in zip(got[1:], expected[1:], strict=True):
        assert_gradient_close(gradient, truth, x.numel(), x.dtype)


@pytest.mark.parametrize(
    ("weights", "padding", "ranges"),
    [
        pytest.param((0.0, 1.0, 0.0), "valid", (1.0,), id="contrast"),
        pytest.param((0.0, 0.0, 1.0), "same", (1.0,), id="structure"),
        pytest.param(None, "same", (1.0, 255.0), id="ssim"),
        pytest.param(THIRDS, "valid", (255.0, 1e-9, 1e10), id="thirds"),
    ],
)
def test_float32_keeps_its_digits(
    weights: tuple[float, float, float] | None, padding: str, ranges: tuple[float, ...]
) -> None:
    """On images that cost digits elsewhere. Those of one range make one batch."""
    pairs = numeric_pairs(16)
    options: Options = {} if weights is None else {"weights": weights}
    function, _ = function_of(options)
    for data_range in ranges:
        names = [name for name, pair in pairs.items() if pair.data_range == data_range]
        x, y = (torch.cat([getattr(pairs[name], image) for name in names]) for image in ("x", "y"))
        arguments: Options = {"data_range": data_range, "padding": padding, "reduction": "none", **options}
        expected = value_and_gradients(function, x.double(), y.double(), backend="reference", **arguments)
        got = value_and_gradients(function, x, y, backend="triton", **arguments)
        assert_close(got[0], expected[0], "similarity value", x.dtype)
        for index, name in enumerate(names):
            hard = name in ("flat and textured", "black and textured", "tiny range")
            bound = "fused gradient, flat beside textured" if hard else "similarity gradient"
            own = slice(2 * index, 2 * index + 2)
            for gradient, truth in zip(got[1:], expected[1:], strict=True):
                scale = expected[0].numel() * data_range
                assert_gradient_close(gradient[own], truth[own], scale, x.dtype, bound)


def test_equal_images_score_one_and_none_more() -> None:
    x, _ = images(2, 1, 14, 33)
    nearly = x + 1e-4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for function in (aw_ssim, ssim):
        assert function(x, x.clone(), padding="same", backend="triton") == 1
        scores = function(x, nearly, reduction="none", backend="triton")
        assert float(scores.max()) <= 1 + tolerance("similarity bound", x.dtype)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter computes in numpy
@pytest.mark.parametrize("special", [float("inf"), float("nan")])
def test_numbers_that_are_none_spoil_their_own_windows_only(special: float) -> None:
    x, y = images(1, 1, 20, 20)
    x[0, 0, 9, 9] = special
    spoiled = ssim(x, y, window_size=5, reduction="none", backend="triton").isnan()
    rows = torch.arange(16)
    covers = (rows >= 5) & (rows <= 9)
    assert torch.equal(spoiled[0, 0], covers.unsqueeze(1) & covers)


def test_the_same_inputs_give_the_same_bits_and_stay_as_they_are() -> None:
    x, y = images(2, 3, 7, 37)
    before = x.clone(), y.clone()
    first = value_and_gradients(aw_ssim, x, y, window_size=5, backend="triton")
    second = value_and_gradients(aw_ssim, x, y, window_size=5, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("sigma", [1e-30, 0.1, 1e30])
def test_extreme_sigma(sigma: float) -> None:
    options: Options = {"weights": UNEVEN, "window_size": 7, "sigma": sigma, "reduction": "none"}
    assert_agrees(*images(1, 1, 8, 9), few_pixels=sigma < 1, **options)


# --- mask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mask(dtype: torch.dtype, padding: str) -> None:
    x, y = (image.to(dtype) for image in images(2, 2, 14, 37))
    mask = some_mask(2, 1, 14, 37).to(dtype)
    options: Options = {"window_size": 5, "padding": padding}
    assert_agrees(x, y, weights=UNEVEN, l1_weight=0.3, mask=mask, **options)
    assert_agrees(x, y, mask=mask, reduction="sample", **options)
    assert_agrees(x, y, few_pixels=True, weights=UNEVEN, mask=mask > 0, reduction="none", **options)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_what_a_mask_hides_reaches_nothing(padding: str) -> None:
    x, y = images(1, 2, 9, 10)
    mask = some_mask(1, 1, 9, 10) > 0
    hidden = ~mask.expand_as(x)
    options: Options = {"weights": UNEVEN, "l1_weight": 0.3, "padding": padding, "mask": mask}
    options |= {"window_size": 5, "backend": "triton"}
    expected = value_and_gradients(aw_ssim_loss, x, y, **options)
    for content in (float("nan"), 1e30):
        got = value_and_gradients(
            aw_ssim_loss, x.masked_fill(hidden, content), y.masked_fill(hidden, -content), **options
        )
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        assert not got[1][hidden].any()
        assert not got[2][hidden].any()


def test_a_mask_that_hides_all_and_one_that_hides_nothing() -> None:
    x, y = images(2, 1, 6, 7)
    nothing = torch.zeros(2, 1, 6, 7)
    options: Options = {"weights": UNEVEN, "window_size": 5, "backend": "triton"}
    value, grad_x, grad_y = value_and_gradients(aw_ssim, x, y, mask=nothing, **options)
    assert_close(value, torch.tensor(1.0), "similarity value", x.dtype)
    assert not grad_x.any()
    assert not grad_y.any()
    whole = value_and_gradients(aw_ssim, x, y, mask=nothing + 1, **options)
    without = value_and_gradients(aw_ssim, x, y, **options)
    assert_close(whole[0], without[0], "similarity value", x.dtype)
    for gradient, truth in zip(whole[1:], without[1:], strict=True):
        assert_gradient_close(gradient, truth, 2 * 2 * 3, x.dtype)


def test_masked_images_keep_their_digits() -> None:
    """Bright and nearly flat, where the first rows and columns are hidden."""
    generator = torch.Generator().manual_seed(3)
    x, y = (250 + 0.02 * torch.randn(1, 1, 20, 24, generator=generator) for _ in range(2))
    mask = torch.ones(1, 1, 20, 24)
    mask[..., :8, :] = 0
    mask[..., :7] = 0
    assert_agrees(x, y, weights=UNEVEN, data_range=255.0, mask=mask, padding="same", reduction="none")


# --- whatever the options ------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Options]:
    window_size = draw(st.sampled_from([3, 5]))
    padding = draw(st.sampled_from(["valid", "same"]))
    least = window_size if padding == "valid" else 1
    size = st.integers(least, least + 8)
    batch = draw(st.integers(1, 3))
    shape = (batch, draw(st.integers(1, 3)), draw(size), draw(size))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    data_range = draw(st.sampled_from([1e-3, 1.0, 255.0]))
    x, y = images(*shape, seed=draw(st.integers(0, 1000)))
    weight = st.floats(-1, 1)
    options: Options = {
        "window_size": window_size,
        "padding": padding,
        "data_range": data_range,
        "sigma": torch.tensor(draw(st.lists(st.floats(0.4, 6), min_size=batch, max_size=batch)), dtype=dtype),
    }
    if draw(st.booleans()):
        options["weights"] = (draw(weight), draw(weight), draw(weight))
    if draw(st.booleans()):
        options["mask"] = some_mask(batch, 1, *shape[2:]).to(dtype)
    if draw(st.booleans()):
        options["l1_weight"] = draw(st.floats(0, 1))
    else:
        options["reduction"] = draw(st.sampled_from(["mean", "sample", "none"]))
    return (data_range * x).to(dtype), (data_range * y).to(dtype), options


@settings(max_examples=8)
@given(cases())
def test_agrees_with_the_reference_whatever_the_options(case: tuple[Tensor, Tensor, Options]) -> None:
    x, y, options = case
    assert_agrees(x, y, few_pixels="mask" in options, **options)


# --- as torch sees it ----------------------------------------------------------------------------------------------


def test_operators_are_registered_well() -> None:
    x, y = (image.requires_grad_() for image in images(2, 1, 5, 6))
    arguments = (torch.tensor([1.5, 0.7]), None, [0.2, 0.5, 0.3], True, 3, 1.0, 0.01, 0.03, "valid", 0.0)
    ops = torch.ops.twostage_kernels
    torch.library.opcheck(ops.triton_similarity.default, (x, y, *arguments, "loss", True, True))
    torch.library.opcheck(ops.triton_similarity_map.default, (x, y, *arguments))
    plain = x.detach(), y.detach()
    upstream = torch.ones(2, 1, 3, 4)
    torch.library.opcheck(ops.triton_similarity_map_backward.default, (upstream, *plain, *arguments, True, True))


def test_gradcheck() -> None:
    pair = tuple(image.double().requires_grad_() for image in images(1, 1, 4, 5))
    for function in (aw_ssim, ssim):
        assert torch.autograd.gradcheck(
            lambda x, y, f=function: f(x, y, window_size=3, reduction="sample", backend="triton"),
            pair,
            atol=1e-6,
            fast_mode=True,
        )


@pytest.mark.parametrize("factors", [[2.5], [1.0], [0.5, 1.0, -3.0]], ids=str)
def test_rescale(factors: list[float]) -> None:
    from twostage_kernels.triton_gpu.launch import rescale

    gradient = torch.randn(3, 2, 17, 40, generator=torch.Generator().manual_seed(1))
    expected = gradient * torch.tensor(factors).view(-1, 1, 1, 1)
    factor = torch.tensor(factors) if len(factors) > 1 else torch.tensor(factors[0])
    rescale(gradient, factor)
    assert torch.equal(gradient, expected)
    rescale(gradient[:0], factor)


def test_a_factor_of_one_writes_nothing() -> None:
    from twostage_kernels.triton_gpu.launch import rescale

    gradient = torch.empty(2, 1, 3, 4)
    gradient.view(torch.int32).fill_(0x7FA00000)  # a signalling NaN: any arithmetic would make it a quiet one
    rescale(gradient, torch.tensor(1.0))
    assert bool((gradient.view(torch.int32) == 0x7FA00000).all())
