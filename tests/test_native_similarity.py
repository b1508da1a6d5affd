"""The C++ similarity kernels against the reference in float64, and against packages that nobody here wrote."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from poisoned import poisoned_memory  # noqa: F401
from tolerances import (
    GRADIENT,
    HALF_ROUNDING,
    HARD_GRADIENT,
    ORACLE_GRADIENT,
    ORACLE_SCORE,
    SCORE,
    WIDE_WINDOW_SCORE,
)
from torch import Tensor

import twostage_kernels
from twostage_kernels import aw_ssim, aw_ssim_loss, native, ssim, ssim_loss

if native.unavailable:
    pytest.skip(f"no native backend: {native.unavailable}", allow_module_level=True)

Options = dict[str, object]
WEIGHTS = (0.2, 0.5, 0.3)


@pytest.fixture(params=range(len(native.instruction_sets())), ids=native.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    with native.forced_instruction_set(request.param):
        yield


def score(prediction: Tensor, target: Tensor, backend: str, options: Options) -> Tensor:
    """Additive with ``weights`` among the options, else the product."""
    function = aw_ssim if "weights" in options else ssim
    return function(prediction, target, backend=backend, **options)  # type: ignore[arg-type]


def differentiate(
    prediction: Tensor, target: Tensor, backend: str, options: Options, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The value, and the gradients of both images for its sum, weighted by ``upstream``."""
    prediction, target = prediction.detach().requires_grad_(), target.detach().requires_grad_()
    value = score(prediction, target, backend, options)
    weighted = value if upstream is None else value * upstream.to(value.dtype)
    by_prediction, by_target = torch.autograd.grad(weighted.sum(), (prediction, target))
    return value.detach(), by_prediction, by_target


def windows(images: Tensor, options: Options) -> int:
    cut = 0 if options.get("padding") == "same" else int(options.get("window_size", 11)) - 1  # type: ignore[call-overload]
    return (images.shape[2] - cut) * (images.shape[3] - cut) * images.shape[1]


def assert_agrees(
    prediction: Tensor,
    target: Tensor,
    options: Options,
    upstream: Tensor | None = None,
    tolerance: dict[torch.dtype, float] = SCORE,
) -> None:
    value, *gradients = differentiate(prediction, target, "native", options, upstream)
    wanted = differentiate(prediction.double(), target.double(), "reference", double_sigma(options), upstream)
    precision = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    assert value.dtype == precision
    assert (value - wanted[0]).abs().max() <= tolerance[precision]
    n = 1 if options.get("reduction") == "none" else windows(prediction, options)
    n *= prediction.shape[0] if options.get("reduction", "mean") == "mean" else 1
    for gradient, expected in zip(gradients, wanted[1:], strict=True):
        assert gradient.dtype == prediction.dtype
        scale = n * float(options.get("data_range", 1.0))  # type: ignore[arg-type]
        rounding = HALF_ROUNDING.get(prediction.dtype, GRADIENT[precision])
        assert (gradient - expected).abs().max() * scale <= rounding * max(1.0, float(expected.abs().max()) * scale)


def double_sigma(options: Options) -> Options:
    sigma = options.get("sigma")
    return {**options, "sigma": sigma.double()} if isinstance(sigma, Tensor) else options


def image_pair(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    prediction = (target + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return prediction.to(dtype), target.to(dtype)


SHAPES = [
    (1, 1, 11, 11),  # one window
    (2, 3, 12, 27),
    (3, 5, 33, 16),
    (1, 1, 270, 19),  # several tiles below each other
    (1, 2, 14, 523),  # several tiles beside each other
    (1, 1, 300, 300),
]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = image_pair(*shape, dtype=dtype)
    for padding, additive in product(("valid", "same"), (True, False)):
        assert_agrees(*images, {"padding": padding, **({"weights": WEIGHTS} if additive else {})})


@pytest.mark.parametrize("reduction", ["mean", "sample", "none"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_reductions_with_any_upstream_gradient(reduction: str, padding: str) -> None:
    options: Options = {"weights": WEIGHTS, "reduction": reduction, "padding": padding}
    images = image_pair(3, 2, 30, 281)
    generator = torch.Generator().manual_seed(1)
    assert_agrees(*images, options, torch.rand(score(*images, "native", options).shape, generator=generator))


@pytest.mark.parametrize("window_size", [1, 3, 7, 13, 33])
def test_window_sizes(window_size: int) -> None:
    for padding in ("valid", "same"):
        assert_agrees(*image_pair(2, 1, 35, 41), {"weights": WEIGHTS, "window_size": window_size, "padding": padding})


@pytest.mark.parametrize("shape", [(1, 1, 1, 40), (2, 1, 40, 1), (1, 3, 1, 1), (1, 1, 4, 5)], ids=str)
def test_images_smaller_than_the_window(shape: tuple[int, ...]) -> None:
    assert_agrees(*image_pair(*shape), {"weights": WEIGHTS, "padding": "same"})
    assert_agrees(*image_pair(*shape), {"padding": "same"})


def test_large_image() -> None:
    images = image_pair(1, 1, 1024, 1024)
    value, *gradients = differentiate(*images, "native", {"weights": WEIGHTS})
    in_double = differentiate(images[0].double(), images[1].double(), "native", {"weights": WEIGHTS})
    assert abs(float(value - in_double[0])) <= SCORE[torch.float32]
    for gradient, expected in zip(gradients, in_double[1:], strict=True):
        assert (gradient - expected).abs().max() <= GRADIENT[torch.float32] * expected.abs().max()
    top = aw_ssim(*(image[:, :, :60] for image in images), reduction="none", backend="reference")
    assert (aw_ssim(*images, reduction="none", backend="native")[:, :, :50] - top).abs().max() <= SCORE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_exactly(dtype: torch.dtype) -> None:
    images = image_pair(2, 3, 20, 24, dtype=dtype)
    images[0][0, 0, 0, :4] = torch.tensor([0.0, -0.0, 6e-8, 1e-5])  # zeros and, in float16, subnormal numbers
    assert torch.equal(
        aw_ssim(*images, backend="native"), aw_ssim(images[0].float(), images[1].float(), backend="native")
    )
    # Times n, or float16 would round the gradients to 0.
    assert_agrees(*images, {"weights": WEIGHTS, "reduction": "none"})
    assert_agrees(*images, {"reduction": "none"})


@pytest.mark.parametrize("special", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_that_are_none_spoil_their_own_windows_only(special: float, dtype: torch.dtype) -> None:
    prediction, target = image_pair(1, 1, 40, 40, dtype=dtype)
    prediction[0, 0, 20, 20] = special
    spoiled = aw_ssim(prediction, target, reduction="none", backend="native").isnan()
    rows = torch.arange(30)
    covers = (rows >= 10) & (rows <= 20)
    assert torch.equal(spoiled[0, 0], covers.unsqueeze(1) & covers)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("width", [20, 48, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_that_are_none_do_not_reach_over_a_border(
    dtype: torch.dtype, width: int, reduction: str, padding: str
) -> None:
    options: Options = {"weights": WEIGHTS, "reduction": reduction, "padding": padding}
    prediction, target = image_pair(2, 2, 40, width, dtype=dtype)
    clean = differentiate(prediction, target, "native", options)
    for row, column in ((0, 0), (0, width - 1), (20, 0), (20, width - 1), (39, width - 1)):
        for plane in ((0, 1), (1, 0)):
            spoiled = prediction.clone()
            spoiled[(*plane, row, column)] = float("nan")
            _, *gradients = differentiate(spoiled, target, "native", options)
            rows, columns = torch.arange(40).unsqueeze(1), torch.arange(width)
            near = torch.zeros(prediction.shape, dtype=torch.bool)
            near[plane] = ((rows - row).abs() <= 10) & ((columns - column).abs() <= 10)
            for gradient, expected in zip(gradients, clean[1:], strict=True):
                assert torch.equal(gradient[~near], expected[~near])


def test_strides_do_not_matter() -> None:
    prediction, target = image_pair(2, 3, 20, 24)
    plain = differentiate(prediction, target, "native", {"weights": WEIGHTS})
    layouts = [
        prediction.to(memory_format=torch.channels_last),
        prediction.transpose(2, 3).contiguous().transpose(2, 3),
        torch.nn.functional.pad(prediction, (3, 2))[..., 3:-2],
        torch.stack((prediction, target), dim=-1)[..., 0],
    ]
    for image in layouts:
        assert not image.is_contiguous()
        for got, wanted in zip(differentiate(image, target, "native", {"weights": WEIGHTS}), plain, strict=True):
            assert torch.equal(got, wanted)
    same = target[:1].expand(2, -1, -1, -1)
    assert torch.equal(aw_ssim(prediction, same, backend="native"), aw_ssim(prediction, same.clone(), backend="native"))


def test_each_sample_has_its_sigma() -> None:
    images = image_pair(3, 2, 20, 20)
    sigma = torch.tensor([0.5, 1.5, 2.5])
    assert_agrees(*images, {"weights": WEIGHTS, "sigma": sigma, "reduction": "sample"})
    spread = torch.tensor([0.5, 9.0, 1.5, 9.0, 2.5])[::2]
    assert torch.equal(
        aw_ssim(*images, sigma=sigma, backend="native"), aw_ssim(*images, sigma=spread, backend="native")
    )


@pytest.mark.parametrize("sigma", [1e-30, 0.1, 1e30])
def test_extreme_sigma(sigma: float) -> None:
    assert_agrees(*image_pair(1, 1, 20, 20), {"sigma": sigma})


def test_gradient_of_one_image_is_that_of_both() -> None:
    prediction, target = image_pair(2, 1, 30, 20)
    for function in (aw_ssim, ssim):
        _, *both = differentiate(prediction, target, "native", {"weights": WEIGHTS} if function is aw_ssim else {})
        options: Options = {"weights": WEIGHTS} if function is aw_ssim else {}
        x = prediction.clone().requires_grad_()
        y = target.clone().requires_grad_()
        (by_x,) = torch.autograd.grad(score(x, target, "native", options), x)
        (by_y,) = torch.autograd.grad(score(prediction, y, "native", options), y)
        assert (by_x - both[0]).abs().max() <= 1e-6 * both[0].abs().max()
        assert (by_y - both[1]).abs().max() <= 1e-6 * both[1].abs().max()


def test_losses_are_one_minus_the_score() -> None:
    prediction, target = image_pair(2, 1, 30, 20)
    for loss, function in ((aw_ssim_loss, aw_ssim), (ssim_loss, ssim)):
        x = prediction.clone().requires_grad_()
        (by_loss,) = torch.autograd.grad(loss(x, target, backend="native"), x)
        (by_score,) = torch.autograd.grad(function(x, target, backend="native"), x)
        assert torch.equal(by_loss, -by_score)
        difference = loss(prediction, target, backend="native") - (1 - function(prediction, target, backend="native"))
        assert abs(float(difference)) <= SCORE[torch.float32]


def test_equal_images_score_one_exactly_and_none_more() -> None:
    image, _ = image_pair(1, 3, 40, 40)
    for function in (aw_ssim, ssim):
        assert function(image, image.clone(), backend="native") == 1
        nearly = image + 1e-4 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        assert function(image, nearly, reduction="none", backend="native").max() <= 1


def hard_images() -> dict[str, tuple[Tensor, Tensor, float]]:
    """Pairs in float32, with their range, on which moments about 0 lose their digits."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, 64, 128)

    def noise(amplitude: float) -> Tensor:
        return amplitude * torch.randn(shape, generator=generator, dtype=torch.float64)

    def rand() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    flat = torch.full(shape, 0.5, dtype=torch.float64)
    ramp = torch.linspace(0, 1, shape[3], dtype=torch.float64).expand(shape)
    steps = torch.linspace(0, 1, shape[2], dtype=torch.float64).view(-1, 1).expand(shape)
    texture = rand()
    pairs = {
        "constant": (flat, flat, 1.0),
        "nearly constant": (flat + noise(1e-4), flat + noise(1e-4), 1.0),
        "bright, range 255": (250 + noise(0.02), 250 + noise(0.02), 255.0),
        "ramp": (ramp + noise(1e-4), ramp + noise(1e-4), 1.0),
        "ramp down": (steps + noise(1e-4), steps + noise(1e-4), 1.0),
        "ramp against flat": (flat + noise(1e-2), ramp + noise(1e-4), 1.0),
        "far from 0": (100 + rand(), 100 + rand(), 1.0),
        "equal": (texture, texture, 1.0),
        "black": (0 * flat, 0 * flat, 1.0),
    }
    return {name: (x.float(), y.float(), data_range) for name, (x, y, data_range) in pairs.items()}


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("name", hard_images())
def test_hard_images_keep_their_digits(name: str, padding: str) -> None:
    prediction, target, data_range = hard_images()[name]
    for additive in (True, False):
        options: Options = {"padding": padding, "data_range": data_range, **({"weights": WEIGHTS} if additive else {})}
        value, *gradients = differentiate(prediction, target, "native", options)
        wanted, *expected = differentiate(prediction.double(), target.double(), "reference", options)
        assert abs(float(value - wanted)) <= SCORE[torch.float32]
        for gradient, exact in zip(gradients, expected, strict=True):
            scale = windows(prediction, options)
            # Where one image is flat and the other is not, scaled gradients reach 58: there the bound grows with them.
            largest = float(scale * exact.abs().max()) if name == "ramp against flat" else 1.0
            assert scale * (gradient - exact).abs().max() <= HARD_GRADIENT * max(1.0, largest)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Options]:
    window_size = draw(st.sampled_from([3, 5, 11, 11, 11, 15]))
    padding = draw(st.sampled_from(["valid", "same"]))
    least = window_size if padding == "valid" else 1
    size = st.integers(least, least + 40)
    batch = draw(st.integers(1, 3))
    shape = (batch, draw(st.integers(1, 3)), draw(size), draw(size))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    data_range = draw(st.sampled_from([1e-3, 1.0, 255.0, 65535.0]))
    prediction, target = image_pair(*shape, dtype=torch.float64, seed=draw(st.integers(0, 1000)))
    level, contrast = draw(st.floats(0, 0.5)), draw(st.floats(0.05, 0.5))
    weight = st.floats(-1, 1)
    options: Options = {
        "window_size": window_size,
        "padding": padding,
        "data_range": data_range,
        "reduction": draw(st.sampled_from(["mean", "sample", "none"])),
        "sigma": torch.tensor(draw(st.lists(st.floats(0.4, 6), min_size=batch, max_size=batch)), dtype=dtype),
    }
    if draw(st.booleans()):
        options["weights"] = (draw(weight), draw(weight), draw(weight))
    prediction, target = ((data_range * (level + contrast * image)).to(dtype) for image in (prediction, target))
    if draw(st.booleans()):
        prediction = prediction.to(memory_format=torch.channels_last)
    return prediction, target, options


@given(cases(), st.sampled_from(range(len(native.instruction_sets()))))
def test_agrees_with_reference_whatever_the_options(case: tuple[Tensor, Tensor, Options], instructions: int) -> None:
    with native.forced_instruction_set(instructions):
        assert_agrees(*case, tolerance=WIDE_WINDOW_SCORE)


@pytest.mark.parametrize(("window_size", "sigma"), [(11, 1.5), (7, 1.0)])
def test_ssim_is_that_of_pytorch_msssim(window_size: int, sigma: float) -> None:
    msssim = pytest.importorskip("pytorch_msssim", reason="pytorch-msssim is not installed")
    prediction, target = image_pair(2, 3, 48, 40)
    x, y = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    theirs = msssim.ssim(y, target, data_range=1, size_average=False, win_size=window_size, win_sigma=sigma)
    ours = ssim(x, target, sigma=sigma, window_size=window_size, reduction="sample", backend="native")
    assert (ours - theirs).abs().max() <= ORACLE_SCORE
    (by_ours,), (by_theirs,) = torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), y)
    assert windows(prediction, {"window_size": window_size}) * (by_ours - by_theirs).abs().max() <= ORACLE_GRADIENT


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    prediction, target = image_pair(1, 1, 48, 40, dtype=torch.float64)
    _, theirs = metrics.structural_similarity(
        prediction[0, 0].numpy(),
        target[0, 0].numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ours = ssim(prediction, target, reduction="none", backend="native")[0, 0].numpy()
    # scikit-image filters beyond the border too; away from it the windows are the same.
    assert np.abs(ours - theirs[5:-5, 5:-5]).max() <= SCORE[torch.float64]


def test_native_is_what_auto_takes() -> None:
    assert twostage_kernels.available_backends("aw_ssim", "cpu") == ("native", "reference")
    images = image_pair(1, 1, 20, 20)
    assert torch.equal(aw_ssim(*images), aw_ssim(*images, backend="native"))
