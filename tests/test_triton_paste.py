"""The Triton kernel of ``paste_defects``: interpreted and compiled ahead of time, and on a GPU where there is one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from paste_cases import any_batch, assert_pasted, big_batch, moved
from torch import Tensor
from triton_cases import INTERPRETED, compile_kernel, compiled, resources, run_interpreted, with_triton

from twostage_kernels import available_backends, paste_defects, triton_gpu
from twostage_kernels.backends import why_unavailable
from twostage_kernels.paste_arguments import Polygons

on_gpu = pytest.mark.skipif(
    triton_gpu.why_not_on_cuda() is not None, reason=f"no Triton on a GPU: {triton_gpu.why_not_on_cuda()}"
)


@with_triton
def test_in_the_interpreter() -> None:
    run_interpreted("interpreted_triton_paste.py")


def test_the_reason_why_there_is_no_kernel() -> None:
    if not triton_gpu.is_installed():
        assert why_unavailable("paste_defects", "triton", "cuda") == "triton is not installed"
    elif not torch.cuda.is_available():
        assert why_unavailable("paste_defects", "triton", "cuda") == "torch sees no GPU"
    if not INTERPRETED:
        assert "triton" not in available_backends("paste_defects")
    assert why_unavailable("paste_defects", "triton", "meta") == "it has no kernel for meta"


# --- compiled ahead of time ----------------------------------------------------------------------------------------

_OPTIONAL = (
    "image_index",
    "source_layout",
    "strength",
    "color_gain",
    "color_offset",
    "blend_mode",
    "edge_amplitude",
    "edge_grain",
    "edge_seed",
)
_INTEGERS = ("vertex_count", "image_index", "source_index", "source_layout", "blend_mode", "edge_seed")
_NUMBERS = ("vertices", "transform", "blur_sigma", "strength", "color_gain", "color_offset", "edge_amplitude")
_NAMES = {
    torch.uint8: "u8",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


def polygons(options: tuple[str, ...], channels: int) -> Polygons:
    """One for each of the images; ``options`` are those of the optional arguments that are given."""
    wide = {"vertices": (7, 2), "transform": (2, 3), "color_gain": (channels,), "color_offset": (channels,)}
    drawn: dict[str, Any] = {
        name: None
        if name in _OPTIONAL and name not in options
        else torch.zeros(2, *wide.get(name, (3,) if name == "source_layout" else ()))
        for name in Polygons._fields
    }
    return Polygons(**drawn)


def compile_paste(
    architecture: int,
    target: Tensor,
    source: torch.dtype,
    options: tuple[str, ...] = (),
    in_place: bool = False,
) -> Any:
    from twostage_kernels.triton_gpu.device.paste_kernel import paste_kernel
    from twostage_kernels.triton_gpu.paste_launch import ON_GPU, constants_of_kernel

    number = torch.float64 if target.dtype == torch.float64 else torch.float32
    drawn = polygons(options, target.shape[1])
    capability = divmod(architecture, 10)
    constants = constants_of_kernel(target, torch.empty(9), drawn, 4, number, in_place, ON_GPU, capability)
    constants.update({name: None for name in _OPTIONAL if name not in options})
    aligned = ["target", "out", "opacity", "width"]
    for name, stride in zip(("image", "channel", "row", "column"), target.stride(), strict=True):
        if stride == 1:
            constants[f"{name}_stride"] = 1
        elif stride % 16 == 0:
            aligned.append(f"{name}_stride")
    pointers = dict.fromkeys(_INTEGERS, "i64") | dict.fromkeys((*_NUMBERS, "edge_grain", "opacity"), _NAMES[number])
    pointers |= {"target": _NAMES[target.dtype], "out": _NAMES[target.dtype], "source": _NAMES[source]}
    return compile_kernel(paste_kernel, architecture, pointers, constants, aligned)


@with_triton
@compiled
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "source", "channels", "options", "in_place", "channels_last", "registers"),
    [
        pytest.param(torch.float32, torch.float32, 3, ("strength",), False, False, 168, id="float32"),
        pytest.param(torch.float32, torch.uint8, 3, _OPTIONAL, False, False, 255, id="every option"),
        pytest.param(torch.uint8, torch.uint8, 1, ("strength",), True, False, 168, id="bytes, in place"),
        pytest.param(torch.bfloat16, torch.bfloat16, 4, ("strength",), False, True, 255, id="bfloat16, channels last"),
    ],
)
def test_compiles_without_spilling(
    architecture: int,
    dtype: torch.dtype,
    source: torch.dtype,
    channels: int,
    options: tuple[str, ...],
    in_place: bool,
    channels_last: bool,
    registers: int,
    tmp_path: Path,
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    target = torch.empty(2, channels, 64, 64, dtype=dtype).contiguous(memory_format=layout)
    kernel = compile_paste(architecture, target, source, options, in_place)
    used = resources(kernel, tmp_path)
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    if architecture >= 90:
        assert used["REG"] <= registers
    assert kernel.metadata.shared <= 16384


@with_triton
@compiled
def test_float64_compiles(tmp_path: Path) -> None:
    """Its registers do not suffice; it is for comparisons, not for speed."""
    kernel = compile_paste(90, torch.empty(2, 3, 64, 64, dtype=torch.float64), torch.uint8)
    assert resources(kernel, tmp_path)["STACK"] <= 256


@with_triton
@compiled
@pytest.mark.parametrize("architecture", [80, 90])
def test_only_the_products_with_the_bands_fuse_multiply_and_add(architecture: int) -> None:
    """Which pixels are inside depends on the rounding of each operation."""
    from twostage_kernels.triton_gpu.paste_launch import ON_GPU, WARPS

    kernel = compile_paste(architecture, torch.empty(2, 3, 64, 64), torch.float32)
    fields, threads = 4, 32 * WARPS
    products = ON_GPU.chunk_rows * ON_GPU.columns * (ON_GPU.chunk_columns + ON_GPU.rows)
    assert kernel.asm["ptx"].count("fma.rn.f32") == fields * products // threads
    assert not kernel.metadata.enable_fp_fusion  # nor does the assembler


@with_triton
@compiled
def test_no_number_of_polygons_or_sources_asks_for_another_compilation() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    from twostage_kernels.triton_gpu.device.paste_kernel import paste_kernel

    binder = create_function_from_signature(
        paste_kernel.signature, paste_kernel.params, make_backend(GPUTarget("cuda", 90, 32))
    )
    images = ("target", "out", "opacity")
    strides = ("width", "image_stride", "channel_stride", "row_stride", "column_stride", "source_column_stride")
    tensors = (*images, *_INTEGERS, *_NUMBERS, "source", "edge_grain")
    memory = torch.zeros(9)
    keys = []
    for size, bits, tensor in ((1, 0, memory), (16, 1, memory[1:]), (2**20, 2**62, memory[3:])):
        arguments = {
            name: (memory if name in images else tensor)
            if name in tensors
            else 48
            if name in strides
            else bits
            if name in ("low", "high")
            else size
            for name in paste_kernel.signature.parameters
        }
        _, key, _ = binder(**arguments)
        keys.append(
            [entry for entry, parameter in zip(key, paste_kernel.params, strict=True) if not parameter.is_constexpr]
        )
    assert all(key == keys[0] for key in keys)


# --- on a GPU ------------------------------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("seed", range(40))
def test_a_gpu_agrees_with_the_reference(seed: int) -> None:
    arguments = any_batch(seed)
    there = moved(arguments)
    images, opacity = paste_defects(**there, backend="triton")
    again = paste_defects(**there, backend="triton")
    assert torch.equal(images, again[0])
    assert_pasted(arguments, images, opacity)
    in_place = there["target"].clone(memory_format=torch.preserve_format)
    paste_defects(**{**there, "target": in_place}, out=in_place, backend="triton")
    assert torch.equal(in_place, images)


@on_gpu
def test_hard_edges_on_a_gpu_are_those_of_the_reference() -> None:
    arguments = big_batch(noisy=False)
    arguments["blur_sigma"] = torch.zeros(24)
    arguments["vertices"] = (2 * arguments["vertices"]).round() / 2
    for noise in ({}, {"edge_amplitude": torch.full((24,), 3.3), "edge_grain": torch.full((24,), 4.0)}):
        every = {**arguments, **noise, **({"edge_seed": torch.arange(24)} if noise else {})}
        expected = paste_defects(**every, backend="reference")[1]
        assert torch.equal(paste_defects(**moved(every), backend="triton")[1].cpu(), expected)


@on_gpu
def test_a_graph_replays_with_new_polygons_and_nothing_waits() -> None:
    arguments = moved(big_batch(noisy=False))
    eager = moved(big_batch(noisy=False))
    paste_defects(**arguments, backend="triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            images, opacity = paste_defects(**arguments, backend="triton")
        for step in range(3):
            for each in (arguments, eager):
                each["vertices"] += 3 * step
                each["vertex_count"][step::5] = 0
                each["blur_sigma"].mul_(0.7)
            graph.replay()
            expected = paste_defects(**eager, backend="triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(images, expected[0])
    assert torch.equal(opacity, expected[1])


@on_gpu
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vertices", float("nan")),
        ("vertex_count", 8),
        ("source_index", 2**40),
        ("source_index", -1),
        ("transform", float("inf")),
        ("blur_sigma", 1e9),
    ],
)
def test_a_gpu_leaves_unusable_polygons_out(name: str, content: float) -> None:
    arguments = moved(big_batch(noisy=False))
    arguments["vertex_count"][3] = 0
    expected = paste_defects(**arguments, backend="triton")
    arguments = moved(big_batch(noisy=False))
    arguments[name][3] = content
    got = paste_defects(**arguments, backend="triton")
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@on_gpu
def test_more_than_two_billion_pixels() -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < 30 * 2**30:
        pytest.skip(f"30 GiB of GPU memory are needed; {free / 2**30:.0f} are free")
    target = torch.zeros(3, 1, 30000, 30000, device="cuda", dtype=torch.uint8)
    arguments = moved(big_batch(noisy=False))
    arguments = {name: value[:3] if isinstance(value, Tensor) else value for name, value in arguments.items()}
    arguments["vertices"] = arguments["vertices"] + 29900
    arguments["source"] = torch.full((4, 1, 5, 5), 200, device="cuda", dtype=torch.uint8)
    arguments |= {"source_index": torch.zeros(3, dtype=torch.int64, device="cuda"), "target": target[2:]}
    arguments["image_index"] = torch.zeros(3, dtype=torch.int64, device="cuda")
    expected = paste_defects(**arguments, backend="triton")
    assert bool(expected[0].any())
    got = paste_defects(
        **{**arguments, "target": target, "image_index": arguments["image_index"] + 2}, backend="triton"
    )
    assert torch.equal(got[0][2:], expected[0])
    assert torch.equal(got[1][2:], expected[1])
    assert not got[0][:2].any()
