"""Every backend of the similarity ops does what the float64 reference does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from similarity_cases import (
    assert_close,
    assert_gradient_close,
    backend_cases,
    score,
    skip_what_is_not_taken,
    value_and_gradients,
    value_tolerance,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from twostage_kernels import available_backends, aw_ssim, aw_ssim_loss, ssim, ssim_loss

UNEVEN = (0.2, 0.5, 0.3)
# (device, backend, weights), weights None standing for classic SSIM.
CASES = pytest.mark.parametrize(
    ("device", "backend", "weights"),
    [
        pytest.param(*case.values, weights, id=f"{op}-{case.id}")
        for op, weights in (("aw_ssim", UNEVEN), ("ssim", None))
        for case in backend_cases(op)
    ],
)
Weights = tuple[float, float, float] | None


def images(*shape: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    return x, 0.4 * x + 0.5 * torch.rand(shape, generator=generator)


def assert_as_reference(
    device: str, backend: str, weights: Weights, x: Tensor, y: Tensor, sigma: Tensor | float = 1.5, **arguments: Any
) -> None:
    """Map and both gradients of float32 and float64 images against the reference in float64."""
    arguments["reduction"] = "none"
    exact_sigma = sigma.double() if isinstance(sigma, Tensor) else sigma
    expected = value_and_gradients(
        score(weights), x.double(), y.double(), sigma=exact_sigma, backend="reference", **arguments
    )
    for dtype in (torch.float32, torch.float64):
        placed = sigma.to(device, dtype) if isinstance(sigma, Tensor) else sigma
        try:
            got = value_and_gradients(
                score(weights), x.to(device, dtype), y.to(device, dtype), sigma=placed, backend=backend, **arguments
            )
        except ValueError as error:
            skip_what_is_not_taken(error)
            raise
        assert got[0].dtype == dtype
        single = backend != "reference" and arguments.get("window_size") == 1
        name = "fused value, single pixel" if single else value_tolerance(device, backend)
        assert_close(got[0], expected[0], name, dtype)
        streamed = (device, backend) == ("cuda", "native")
        for gradient, truth in zip(got[1:], expected[1:], strict=True):
            name = "streamed gradient, few pixels" if streamed else "similarity gradient"
            assert_gradient_close(gradient, truth, expected[0].numel(), dtype, name)


# --- shapes, windows, sigma ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "window_size", "padding"),
    [
        pytest.param((1, 1, 11, 11), 11, "valid", id="one window"),
        pytest.param((2, 3, 17, 29), 11, "valid", id="odd sizes"),
        pytest.param((1, 5, 12, 41), 11, "same", id="five channels"),
        pytest.param((3, 1, 70, 133), 11, "valid", id="beyond one tile"),
        pytest.param((1, 1, 70, 133), 11, "same", id="beyond one tile, padded"),
        pytest.param((2, 1, 1, 19), 11, "same", id="one row"),
        pytest.param((2, 1, 19, 1), 11, "same", id="one column"),
        pytest.param((1, 2, 3, 4), 11, "same", id="smaller than the window"),
        pytest.param((1, 1, 1, 1), 11, "same", id="one pixel"),
        pytest.param((2, 2, 4, 9), 1, "valid", id="window of 1"),
        pytest.param((2, 2, 9, 18), 7, "valid", id="window of 7"),
        pytest.param((1, 2, 20, 37), 15, "same", id="window of 15"),
    ],
)
@CASES
def test_every_shape_and_window(
    device: str, backend: str, weights: Weights, shape: tuple[int, ...], window_size: int, padding: str
) -> None:
    x, y = images(*shape)
    sigma = torch.linspace(0.4, 3.0, shape[0])
    assert_as_reference(device, backend, weights, x, y, sigma, window_size=window_size, padding=padding)


@CASES
def test_sigma_may_be_a_number_a_scalar_tensor_or_one_for_each_sample(
    device: str, backend: str, weights: Weights
) -> None:
    x, y = (image.to(device) for image in images(3, 2, 13, 16))
    function = score(weights)
    number = function(x, y, sigma=2.0, reduction="sample", backend=backend)
    for sigma in (torch.tensor(2.0), torch.full((3,), 2.0), torch.full((3,), 2.0, dtype=torch.float64)):
        assert torch.equal(function(x, y, sigma=sigma.to(device), reduction="sample", backend=backend), number)
    sigmas = torch.tensor([0.5, 1.5, 4.0], device=device)
    together = function(x, y, sigma=sigmas, reduction="none", backend=backend)
    for i, sigma in enumerate(sigmas.tolist()):
        alone = function(x[i : i + 1], y[i : i + 1], sigma=sigma, reduction="none", backend=backend)
        assert_close(together[i : i + 1], alone, "similarity value", x.dtype)
    strided = torch.tensor([0.5, 9.0, 1.5, 9.0, 4.0, 9.0], device=device)[::2]
    assert torch.equal(function(x, y, sigma=strided, reduction="none", backend=backend), together)


@CASES
def test_sigma_gets_no_gradient(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(2, 1, 12, 12))
    sigma = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    assert not score(weights)(x, y, sigma=sigma, backend=backend).requires_grad


# --- memory layout, dtype ------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda image: image.contiguous(memory_format=torch.channels_last),
    "every other row, every third column": lambda image: image.repeat_interleave(2, 2).repeat_interleave(3, 3)[
        :, :, 1::2, 2::3
    ],
    "transposed": lambda image: image.transpose(2, 3).contiguous().transpose(2, 3),
    "batch and channels swapped": lambda image: image.transpose(0, 1).contiguous().transpose(0, 1),
    "cut out of a larger image": lambda image: torch.nn.functional.pad(image, (3, 5, 2, 1), value=9.0)[
        :, :, 2:-1, 3:-5
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@CASES
def test_strides_do_not_matter(device: str, backend: str, weights: Weights, layout: str) -> None:
    x, y = (image.to(device) for image in images(2, 3, 13, 18))
    expected = value_and_gradients(score(weights), x, y, backend=backend)
    strided_x, strided_y = LAYOUTS[layout](x), LAYOUTS[layout](y)
    assert not strided_x.is_contiguous()
    got = value_and_gradients(score(weights), strided_x, strided_y, backend=backend)
    assert_close(got[0], expected[0], "similarity value", x.dtype)
    for gradient, truth in zip(got[1:], expected[1:], strict=True):
        assert_gradient_close(gradient, truth, 2 * 3 * 3 * 8, x.dtype)
    mixed = score(weights)(strided_x, y, backend=backend)
    assert_close(mixed, expected[0], "similarity value", x.dtype)


@CASES
def test_one_image_broadcast_over_the_batch(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(3, 1, 12, 15))
    single = y[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(weights)(x, single.expand(3, -1, -1, -1), backend=backend), single)
    _, _, copies = value_and_gradients(score(weights), x, y[:1].repeat(3, 1, 1, 1), backend=backend)
    assert_gradient_close(gradient, copies.sum(dim=0, keepdim=True), 3 * 2 * 5, x.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@CASES
def test_half_precision_is_computed_in_float32(device: str, backend: str, weights: Weights, dtype: torch.dtype) -> None:
    x, y = (image.to(device, dtype) for image in images(2, 3, 13, 18))
    got = value_and_gradients(score(weights), x, y, reduction="none", backend=backend)
    expected = value_and_gradients(score(weights), x.float(), y.float(), reduction="none", backend=backend)
    assert got[0].dtype == torch.float32
    assert torch.equal(got[0], expected[0])
    for gradient, exact in zip(got[1:], expected[1:], strict=True):
        assert torch.equal(gradient, exact.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@CASES
def test_autocast_changes_nothing(device: str, backend: str, weights: Weights, dtype: torch.dtype) -> None:
    x, y = (image.to(device) for image in images(2, 1, 13, 18))
    expected = value_and_gradients(score(weights), x, y, backend=backend)
    with torch.autocast(device, dtype=dtype):
        got = value_and_gradients(score(weights), x, y, backend=backend)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


# --- gradients -----------------------------------------------------------------------------------------------------


@CASES
def test_either_image_alone_gets_the_gradient_that_both_get(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(2, 1, 13, 18))
    _, grad_x, grad_y = value_and_gradients(score(weights), x, y, backend=backend)
    leaf = x.clone().requires_grad_()
    (alone,) = torch.autograd.grad(score(weights)(leaf, y, backend=backend), leaf)
    assert_gradient_close(alone, grad_x, 2 * 3 * 8, x.dtype)
    leaf = y.clone().requires_grad_()
    (alone,) = torch.autograd.grad(score(weights)(x, leaf, backend=backend), leaf)
    assert_gradient_close(alone, grad_y, 2 * 3 * 8, x.dtype)


@pytest.mark.parametrize("reduction", ["mean", "sample", "none"])
@CASES
def test_upstream_gradients_weigh_every_element(device: str, backend: str, weights: Weights, reduction: str) -> None:
    x, y = images(3, 2, 13, 15)
    weighted: list[Tensor] = []
    for dtype, where, name in ((torch.float64, "cpu", "reference"), (torch.float32, device, backend)):
        first = x.to(where, dtype).requires_grad_()
        values = score(weights)(first, y.to(where, dtype), reduction=reduction, backend=name)
        upstream = torch.linspace(-2, 3, values.numel(), dtype=dtype, device=where).view_as(values)
        weighted.extend(torch.autograd.grad(values, first, upstream))
    assert_gradient_close(weighted[1], weighted[0], 1.0, torch.float32)


@CASES
def test_loss_is_one_minus_the_mean(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(2, 2, 13, 18))
    sigma = torch.tensor([0.8, 2.0], device=device)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        if weights is None:
            return ssim_loss(a, b, sigma=sigma, padding="same", backend=backend)
        return aw_ssim_loss(a, b, sigma=sigma, weights=weights, padding="same", backend=backend)

    got = value_and_gradients(loss, x, y)
    value, grad_x, grad_y = value_and_gradients(score(weights), x, y, sigma=sigma, padding="same", backend=backend)
    assert got[0].shape == ()
    assert_close(got[0], 1 - value, "similarity value", x.dtype)
    for gradient, expected in zip(got[1:], (-grad_x, -grad_y), strict=True):
        assert_gradient_close(gradient, expected, x.numel(), x.dtype)


@CASES
def test_the_same_inputs_give_the_same_bits_and_stay_as_they_are(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(2, 3, 40, 37))
    before = x.clone(), y.clone()
    first = value_and_gradients(score(weights), x, y, backend=backend)
    second = value_and_gradients(score(weights), x, y, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


# --- tracing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_compiled_code() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_no_compiled_code")
@pytest.mark.parametrize(("device", "backend"), backend_cases("aw_ssim"))
def test_compiles_into_one_graph_that_serves_every_sigma(device: str, backend: str) -> None:
    x, y = (image.to(device) for image in images(2, 1, 12, 13))

    def step(a: Tensor, b: Tensor, sigma: Tensor) -> Tensor:
        return aw_ssim_loss(a, b, sigma=sigma, weights=UNEVEN, window_size=3, backend=backend)

    # Capture alone is in question, so no code is generated.
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    sigma = torch.tensor([0.7, 2.0], device=device)
    value_and_gradients(compiled, x, y, sigma=sigma)
    with torch.compiler.set_stance("fail_on_recompile"):
        for sigma in (torch.tensor([0.7, 2.0], device=device), torch.tensor([1.1, 0.4], device=device)):
            got = value_and_gradients(compiled, x, y, sigma=sigma)
            expected = value_and_gradients(step, x, y, sigma=sigma)
            assert_close(got[0], expected[0], "similarity value", x.dtype)
            for gradient, truth in zip(got[1:], expected[1:], strict=True):
                assert_gradient_close(gradient, truth, 2 * 10 * 11, x.dtype)


@CASES
def test_fake_tensors_get_the_shape_without_the_numbers(device: str, backend: str, weights: Weights) -> None:
    with FakeTensorMode():
        x, y = torch.empty(2, 3, 14, 17, device=device), torch.empty(2, 3, 14, 17, device=device)
        sigma = torch.empty(2, device=device)
        for reduction, shape in (("mean", ()), ("sample", (2,)), ("none", (2, 3, 4, 7))):
            values = score(weights)(x, y, sigma=sigma, reduction=reduction, backend=backend)
            assert (tuple(values.shape), values.dtype) == (shape, torch.float32)


@CASES
def test_numbers_given_before_are_no_obstacle_to_fake_tensors(device: str, backend: str, weights: Weights) -> None:
    """What was checked for a real call, its sigma among it, serves real calls only."""
    x = torch.rand(1, 1, 14, 17, device=device)
    expected = score(weights)(x, x, sigma=1.25, backend=backend)
    with FakeTensorMode():
        fake = torch.empty(1, 1, 14, 17, device=device)
        assert score(weights)(fake, fake, sigma=1.25, backend=backend).shape == ()
    with torch.inference_mode():
        assert torch.equal(score(weights)(x, x, sigma=1.26, backend=backend), expected)
    x.requires_grad_()
    score(weights)(x, x.detach(), sigma=1.26, backend=backend).backward()


def test_a_call_like_one_before_is_checked_as_the_first_was() -> None:
    x = torch.rand(1, 1, 16, 16)
    assert aw_ssim(x, x, window_size=11, weights=(1, 0, 0)) == 1
    for window_size in (11.0, torch.tensor(11)):
        with pytest.raises(ValueError, match=r"window_size is .*; accepted: an odd integer"):
            aw_ssim(x, x, window_size=window_size, weights=(1, 0, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights is None; accepted: three numbers"):
        aw_ssim(x, x, weights=None)  # type: ignore[arg-type]
    assert ssim(x, x) == 1
    changing = torch.tensor(1.0)
    given = (changing, torch.tensor(0.0), torch.tensor(0.0))
    assert aw_ssim(x, x, weights=given) == 1  # type: ignore[arg-type]
    changing.fill_(0.5)
    assert aw_ssim(x, x, weights=given) == 0.5  # type: ignore[arg-type]
    assert aw_ssim(x, x, weights=[0.5, 0.0, 0.0]) == 0.5  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights is \(\[1\], 0, 0\)"):
        aw_ssim(x, x, weights=([1], 0, 0))  # type: ignore[arg-type]


def test_what_was_checked_is_forgotten_before_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: dict[object, object] = {}
    monkeypatch.setattr("twostage_kernels.functional.similarity._CHECKED", checked)
    x = torch.rand(1, 1, 16, 16)
    for number in range(300):
        ssim(x, x, sigma=1 + number / 100)
        assert 0 < len(checked) <= 256


# --- the choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["aw_ssim", "ssim", "paste_defects"])
def test_every_op_has_the_reference_as_its_last_resort(op: str) -> None:
    assert available_backends(op)[-1] == "reference"
    assert available_backends(op, torch.device("cpu")) == available_backends(op, "cpu") == available_backends(op)


@CASES
def test_auto_is_the_first_available(device: str, backend: str, weights: Weights) -> None:
    if backend != available_backends("ssim" if weights is None else "aw_ssim", device)[0]:
        pytest.skip("another backend is the first")
    x, y = (image.to(device) for image in images(1, 1, 12, 12))
    assert torch.equal(score(weights)(x, y), score(weights)(x, y, backend=backend))


def test_available_backends_refuses_an_unknown_op() -> None:
    with pytest.raises(ValueError, match="op is 'psnr'; accepted: 'aw_ssim', 'ssim', 'paste_defects'"):
        available_backends("psnr")


def test_available_backends_refuses_an_unknown_device() -> None:
    with pytest.raises(RuntimeError, match="toaster"):
        available_backends("ssim", "toaster")
