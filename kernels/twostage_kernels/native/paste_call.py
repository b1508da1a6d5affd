"""What the paste kernels of csrc take, from tensors."""

from typing import Any

import torch
from torch import Tensor

from twostage_kernels.paste_arguments import Polygons

# Numbers of PixelType in csrc/paste.h.
_TYPES = {torch.uint8: 0, torch.float16: 1, torch.bfloat16: 2, torch.float32: 3, torch.float64: 4}


def plain_polygons(polygons: Polygons, dtype: torch.dtype) -> Polygons:
    """Contiguous, integers as int64 and other numbers as ``dtype``."""
    return Polygons._make([None if value is None else _plain(value, dtype) for value in polygons])


def paste_call(
    target: Tensor,
    source: Tensor,
    polygons: Polygons,
    value_range: tuple[float, float],
    out: Tensor,
    opacity: Tensor,
) -> tuple[Any, ...]:
    """The arguments of a call. The tensors' addresses are among them: they must live until it has run.

    ``polygons`` are those of :func:`plain_polygons`, ``target`` and ``out`` have the same strides, and a source with
    a layout is contiguous.
    """
    layout = polygons.source_layout
    addresses = [
        _address(value) for name, value in zip(polygons._fields, polygons, strict=True) if name != "source_layout"
    ]
    return (
        target.shape,
        target.stride(),
        _TYPES[target.dtype],
        _TYPES[source.dtype],
        (target.data_ptr(), out.data_ptr(), source.data_ptr(), _address(layout)),
        (*source.shape[:1], *source.shape[2:], source.numel()) if layout is None else (len(layout), 0, 0, len(source)),
        source.stride() if layout is None else (0, 0, 0, 0),
        value_range,
        len(polygons.vertex_count),
        [*addresses, opacity.data_ptr()],
    )


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.dtype not in (dtype, torch.int64):
        tensor = tensor.to(dtype if tensor.is_floating_point() else torch.int64)
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
