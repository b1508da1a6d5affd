"""Launches the pasting kernel: tensors in, tensors filled."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from twostage_kernels.paste_arguments import Polygons
from twostage_kernels.paste_checks import require_values
from twostage_kernels.triton_gpu.device.paste_kernel import paste_kernel
from twostage_kernels.triton_gpu.launch import as_bits, contiguous, on_device

_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
_MOST_CHANNELS = 4  # of a program
_MOST_LANES = 128
# Registers of a thread where three programs of 128 threads share a multiprocessor; code for older GPUs needs more.
_THIRD_OF_REGISTERS = 168
_SPARING_CAPABILITY = (9, 0)
_MOST_REGISTERS = 255


class Tiling(NamedTuple):
    """Powers of 2."""

    rows: int
    columns: int
    chunk_rows: int  # of a cut-out, sampled at once; at least 16: triton 3.6 makes no shorter products
    chunk_columns: int


ON_GPU = Tiling(16, 32, 16, 16)
# The interpreter's time goes by instructions.
INTERPRETED = Tiling(64, 64, 32, 32)
WARPS = 4


def constants_of_kernel(
    target: Tensor,
    source: Tensor,
    polygons: Polygons,
    slots: int,
    number: torch.dtype,
    in_place: bool,
    tiling: Tiling,
    capability: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """What ``paste_kernel`` is compiled for, the compiler's options included.

    Args:
        slots: polygons of an image, where they have no ``image_index``.
        capability: of an NVIDIA GPU; None where there is none.
    """
    channels, _, width = target.shape[1:]
    furthest = tiling.rows * max(target.stride(2), width) + tiling.columns * target.stride(3)
    lanes = _MOST_LANES if polygons.image_index is not None else min(max(slots, 2), _MOST_LANES)
    constants = {
        "GROUP": max(group for group in range(1, _MOST_CHANNELS + 1) if channels % group == 0),
        "ROWS": tiling.rows,
        "COLUMNS": tiling.columns,
        "CHUNK_ROWS": tiling.chunk_rows,
        "CHUNK_COLUMNS": tiling.chunk_columns,
        "LANES": 1 << (lanes - 1).bit_length(),
        "IN_PLACE": in_place,
        "OFFSET": _index_type(furthest),
        "INDEX": _index_type(_span(source)),
        "TYPE": _TYPES[number],
        "num_warps": WARPS,
        "enable_fp_fusion": False,
    }
    if capability is not None:
        # Elsewhere the compiler would have to spill some.
        options = (polygons.color_gain, polygons.color_offset, polygons.blend_mode, polygons.edge_amplitude)
        frugal = number == torch.float32 and constants["GROUP"] < 4 and all(option is None for option in options)
        sparing = frugal and capability >= _SPARING_CAPABILITY
        constants["maxnreg"] = _THIRD_OF_REGISTERS if sparing else _MOST_REGISTERS
    return constants


def run(
    target: Tensor,
    source: Tensor,
    polygons: Polygons,
    value_range: tuple[float, float],
    out: Tensor,
    opacity: Tensor,
    tiling: Tiling | None = None,
) -> None:
    """See :class:`twostage_kernels.paste_registration.PasteKernel`."""
    require_values(target, source, polygons)
    if len(target) == 0:
        return
    if target is not out and target.stride() != out.stride():
        target = out.copy_(target)
    if tiling is None:
        tiling = ON_GPU if target.is_cuda else INTERPRETED
    batch, channels, height, width = target.shape
    count = len(polygons.vertex_count)
    plain = Polygons(*map(contiguous, polygons))  # type: ignore[arg-type]
    layout = plain.source_layout
    stacked = layout is None
    source = source if stacked else source.contiguous()
    slots = 0 if plain.image_index is not None else count // batch
    capability = _capability(target.device) if target.is_cuda else None
    constants = constants_of_kernel(target, source, plain, slots, opacity.dtype, target is out, tiling, capability)
    groups = channels // constants["GROUP"]
    tiles = math.ceil(height / tiling.rows) * math.ceil(width / tiling.columns)
    with on_device(target):
        paste_kernel[(batch * groups * tiles,)](
            target,
            out,
            opacity,
            source,
            plain.vertices,
            plain.vertex_count,
            plain.image_index,
            plain.source_index,
            layout,
            plain.transform,
            plain.blur_sigma,
            plain.strength,
            plain.color_gain,
            plain.color_offset,
            plain.blend_mode,
            plain.edge_amplitude,
            plain.edge_grain,
            plain.edge_seed,
            channels,
            height,
            width,
            *target.stride(),
            count,
            slots,
            len(source) if layout is None else len(layout),
            source.numel(),
            *(source.shape[2:] if stacked else (0, 0)),
            *(source.stride() if stacked else (0, 0, 0, 0)),
            *as_bits(*value_range),
            **constants,
        )


@lru_cache
def _capability(device: torch.device) -> tuple[int, int] | None:
    return torch.cuda.get_device_capability(device) if torch.version.hip is None else None


def _index_type(elements: int) -> Any:
    return tl.int32 if elements < 2**31 else tl.int64


def _span(tensor: Tensor) -> int:
    """How many elements lie from its first to its last one."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
