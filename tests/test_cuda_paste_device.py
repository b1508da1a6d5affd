"""What only a GPU shows of the native paste kernels: streams, graphs, several devices, no waiting for the device."""

from typing import Any

import pytest
import torch
from paste_cases import any_batch, assert_images, assert_pasted, moved, rounding
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import native, paste_defects

if native.why_no_cuda() is not None:
    pytest.skip(f"no native CUDA kernels: {native.why_no_cuda()}", allow_module_level=True)

Arguments = dict[str, Any]


def batch(count: int = 64, size: int = 128, seed: int = 3, channels: int = 3) -> Arguments:
    """Blurred polygons, two slots for each image, cut from the images of a packed pool."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    slots = 2 * count
    plane = channels * 40 * 50
    return {
        "target": uniform(count, channels, size, size),
        "source": uniform(4 * plane),
        "source_layout": torch.tensor([[place * plane, 40, 50] for place in range(4)]),
        "vertices": uniform(slots, 7, 2) * size,
        "vertex_count": torch.tensor([0, 3, 5, 7])[torch.randint(4, (slots,), generator=generator)],
        "image_index": None,
        "source_index": torch.arange(slots) % 4,
        "transform": uniform(slots, 2, 3) - 0.3,
        "blur_sigma": uniform(slots) * 2,
        "strength": uniform(slots),
        "color_gain": 0.5 + uniform(slots, channels),
        "edge_amplitude": uniform(slots) * 3,
        "edge_grain": 1 + uniform(slots) * 8,
        "edge_seed": torch.arange(slots),
    }


def paste(arguments: Arguments, **more: Any) -> tuple[Tensor, Tensor]:
    return paste_defects(**{**arguments, **more}, backend="native")


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_agrees_with_the_reference_on_the_cpu(first: int) -> None:
    for seed in range(first, first + 20):
        arguments = any_batch(seed)
        images, opacity = paste(moved(arguments))
        assert images.stride() == arguments["target"].stride()
        assert_pasted(arguments, images, opacity)
        again = paste(moved(arguments))
        assert torch.equal(again[0], images)
        assert torch.equal(again[1], opacity)


def test_a_graph_replays_with_new_images_and_new_polygons() -> None:
    arguments = moved(batch())
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        paste(arguments)
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        images, opacity = paste(arguments)
    for seed in (7, 8):
        other = moved(batch(seed=seed))
        for name, value in arguments.items():
            if value is not None:
                value.copy_(other[name])
        images.fill_(torch.nan)
        opacity.fill_(torch.nan)
        graph.replay()
        expected = paste(other)
        assert torch.equal(images, expected[0])
        assert torch.equal(opacity, expected[1])


def test_runs_on_the_current_stream() -> None:
    arguments = moved(batch())
    wanted = paste(arguments)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # Long enough that work on another stream would find the images as they were.
        torch.cuda._sleep(50_000_000)
        late = {**arguments, "target": arguments["target"] + 0, "vertices": arguments["vertices"] + 0}
        got = paste(late)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])


def test_nothing_waits_for_the_device() -> None:
    arguments = moved(batch())
    owners = torch.arange(len(arguments["vertex_count"]), device="cuda").flip(0) // 2
    paste(arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            arguments["blur_sigma"] += 0.1
            paste(arguments)
            paste(arguments, out=arguments["target"])
            paste(arguments, image_index=owners)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_polygons_that_cannot_be_pasted_are_left_out() -> None:
    arguments = moved(batch())
    spoilt = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    spoilt["vertex_count"][::7] = 9
    spoilt["source_index"][1::7] = 2**40
    spoilt["blur_sigma"][2::7] = torch.nan
    without = {**arguments, "vertex_count": arguments["vertex_count"].clone()}
    for start in range(3):
        without["vertex_count"][start::7] = 0
    got, expected = paste(spoilt), paste(without)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_large_batches(dtype: torch.dtype, memory: torch.memory_format) -> None:
    for count, size, channels in ((256, 128, 3), (8, 512, 1), (2, 1000, 4)):
        arguments = moved(batch(count, size, channels=channels))
        scale = 255 if dtype == torch.uint8 else 1
        for name in ("target", "source"):
            arguments[name] = (scale * arguments[name]).to(dtype)
        arguments["target"] = arguments["target"].contiguous(memory_format=memory)
        got, expected = paste(arguments), paste_defects(**arguments, backend="reference")
        bound = scale * tolerance("paste image", dtype) + rounding(got[0])
        assert float((got[0].double() - expected[0].double()).abs().max()) <= bound
        assert_images(got[1], expected[1], "paste opacity")


def test_more_than_two_billion_pixels() -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < 24 * 2**30:
        pytest.skip(f"24 GiB of GPU memory are needed; {free / 2**30:.0f} are free")
    arguments = moved(batch(9, 64, channels=1))
    arguments |= dict.fromkeys(("strength", "color_gain", "edge_amplitude", "edge_grain", "edge_seed"))
    arguments["vertices"] = arguments["vertices"] * 256
    arguments["vertex_count"][:] = 5
    arguments["source"] = (255 * arguments["source"]).to(torch.uint8)
    target = torch.randint(0, 256, (9, 1, 16384, 16384), device="cuda", dtype=torch.uint8)
    _, opacity = paste({**arguments, "target": target}, out=target.clone())
    slots = {
        name: value[-2:] if value is not None and not name.startswith(("source", "target")) else value
        for name, value in arguments.items()
    }
    slots["source_index"] = arguments["source_index"][-2:]
    _, last = paste({**slots, "target": target[-1:]})
    assert torch.equal(opacity[-1:], last)
    assert bool((last > 0).any())


def test_each_device_gets_its_own_work() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    before = torch.cuda.current_device()
    got = paste(moved(batch(), "cuda:1"))
    assert torch.cuda.current_device() == before
    wanted = paste(moved(batch(), "cuda:0"))
    assert torch.equal(got[0].cpu(), wanted[0].cpu())
    assert torch.equal(got[1].cpu(), wanted[1].cpu())
