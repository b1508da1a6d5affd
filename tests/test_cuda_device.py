"""What only a GPU shows of the native CUDA kernels: streams, graphs, several devices, no waiting for the device."""

from collections.abc import Callable

import pytest
import torch
from similarity_cases import assert_close, assert_gradient_close, value_and_gradients
from torch import Tensor

from twostage_kernels import aw_ssim, aw_ssim_loss, native, ssim_loss

if native.why_no_cuda() is not None:
    pytest.skip(f"no native CUDA kernels: {native.why_no_cuda()}", allow_module_level=True)

UNEVEN = (0.2, 0.5, 0.3)


def images(*shape: int, device: str = "cuda", seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    return x.to(device), (0.4 * x + 0.5 * torch.rand(shape, generator=generator)).to(device)


def loss(x: Tensor, y: Tensor, sigma: Tensor | float = 1.5) -> Tensor:
    return aw_ssim_loss(x, y, sigma=sigma, weights=UNEVEN, backend="native")


def test_a_graph_replays_with_new_images_and_a_new_sigma() -> None:
    x, y = images(2, 3, 100, 90)
    x.requires_grad_()
    sigma = torch.tensor([0.8, 2.0], device="cuda")
    warm_up = torch.cuda.Stream()
    with torch.cuda.stream(warm_up):
        loss(x, y, sigma).backward()
    torch.cuda.current_stream().wait_stream(warm_up)
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(x, y, sigma)
        value.backward()
    for seed, widths in ((7, (1.0, 1.0)), (8, (2.5, 0.6))):
        new_x, new_y = images(2, 3, 100, 90, seed=seed)
        with torch.no_grad():
            x.copy_(new_x)
            y.copy_(new_y)
            sigma.copy_(torch.tensor(widths))
        graph.replay()
        expected = value_and_gradients(loss, new_x, new_y, sigma=torch.tensor(widths, device="cuda"))
        assert torch.equal(value, expected[0])
        assert x.grad is not None
        assert torch.equal(x.grad, expected[1])


def test_runs_on_the_current_stream() -> None:
    x, y = images(4, 3, 256, 256)
    wanted = loss(x, y)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # Long enough that work on another stream would find the images as they were.
        torch.cuda._sleep(50_000_000)
        late_x, late_y = x + 0, y + 0
        value = loss(late_x, late_y)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(value, wanted)


def test_nothing_waits_for_the_device() -> None:
    x, y = images(2, 1, 64, 64)
    x.requires_grad_()
    sigma = torch.tensor([1.0, 2.0], device="cuda")
    mask = torch.ones(2, 1, 64, 64, device="cuda")
    loss(x, y, sigma).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3):
            sigma += 0.1 * step
            loss(x, y, sigma).backward()
            (3 * loss(x, y, sigma)).backward()
            aw_ssim(x, y, sigma=sigma, mask=mask, reduction="sample", backend="native").sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_gradient_is_scaled_on_the_device() -> None:
    x, y = images(3, 2, 40, 41)
    _, once, _ = value_and_gradients(loss, x, y)
    _, scaled, _ = value_and_gradients(lambda a, b: 2.5 * loss(a, b), x, y)
    assert_gradient_close(scaled, 2.5 * once, x.numel(), x.dtype)
    _, samples, _ = value_and_gradients(
        lambda a, b: (
            aw_ssim(a, b, weights=UNEVEN, reduction="sample", backend="native")
            * torch.tensor([1.0, 2.0, -3.0], device="cuda")
        ),
        x,
        y,
    )
    assert_gradient_close(samples[1], -2 * once[1] * 3 / 3, x.numel(), x.dtype)


@pytest.mark.parametrize("function", [loss, lambda x, y: ssim_loss(x, y, padding="same", backend="native")])
def test_large_images_and_batches(function: Callable[..., Tensor]) -> None:
    for shape in ((1, 1, 2048, 2048), (128, 3, 128, 128), (1, 2, 37, 20000), (1, 1, 20000, 37)):
        x, y = images(*shape)
        got = value_and_gradients(function, x, y)
        exact = value_and_gradients(function, x.double(), y.double())
        assert_close(got[0], exact[0], "similarity value", x.dtype)
        for gradient, truth in zip(got[1:], exact[1:], strict=True):
            assert_gradient_close(gradient, truth, x.numel(), x.dtype)


def test_more_than_two_billion_pixels() -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < 30 * 2**30:
        pytest.skip(f"30 GiB of GPU memory are needed; {free / 2**30:.0f} are free")
    x = torch.rand(9, 1, 16384, 16384, device="cuda", dtype=torch.float16)
    y = torch.rand_like(x)
    last = aw_ssim(x, y, reduction="sample", backend="native")[-1]
    assert torch.equal(last, aw_ssim(x[-1:], y[-1:], reduction="sample", backend="native")[0])


def test_each_device_gets_its_own_work() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    x, y = images(1, 1, 50, 60, device="cuda:1")
    before = torch.cuda.current_device()
    value, gradient, _ = value_and_gradients(loss, x, y)
    assert torch.cuda.current_device() == before
    wanted = value_and_gradients(loss, x.to("cuda:0"), y.to("cuda:0"))
    assert torch.equal(value.cpu(), wanted[0].cpu())
    assert torch.equal(gradient.cpu(), wanted[1].cpu())


def test_a_window_beyond_the_kernels_is_refused_by_name_and_passed_on_by_auto() -> None:
    x, y = images(1, 1, 20, 20)
    with pytest.raises(ValueError, match="window_size is 13; accepted by its CUDA kernels: 3 to 11"):
        aw_ssim(x, y, window_size=13, backend="native")
    reference = aw_ssim(x, y, window_size=13, backend="reference")
    assert_close(aw_ssim(x, y, window_size=13), reference, "similarity value", x.dtype)
