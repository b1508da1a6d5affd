"""Checks of the arguments of ``paste_defects``. Each error names the argument, its value and what is accepted."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from twostage_kernels.checks import IMAGE_DTYPES, INDEX_DTYPES, can_be_read
from twostage_kernels.paste_arguments import (
    BLEND_MODES,
    MAX_BLUR_SIGMA,
    MAX_EDGE_AMPLITUDE,
    MAX_VERTICES,
    Polygons,
)

PASTE_DTYPES = (torch.uint8, *IMAGE_DTYPES)
_INTEGERS = ("vertex_count", "image_index", "source_index", "blend_mode", "edge_seed", "source_layout")
_OPTIONAL = (
    "image_index",
    "strength",
    "color_gain",
    "color_offset",
    "blend_mode",
    "edge_amplitude",
    "edge_grain",
    "edge_seed",
    "source_layout",
)
_OR_NONE = dict.fromkeys(_OPTIONAL, ", or None")
# What follows [P] in their shapes.
_WIDTHS = {"vertices": (MAX_VERTICES, 2), "transform": (2, 3)}
_COLORS = ("color_gain", "color_offset")
_EDGE = ("edge_amplitude", "edge_grain", "edge_seed")


def require_paste_images(target: Tensor, source: Tensor, source_layout: Tensor | None) -> None:
    """Shapes, dtypes and devices of the images. Pools of one size are stacked, others packed with a layout."""
    packed = source_layout is not None
    for name, image, ndim in (("target", target, 4), ("source", source, 1 if packed else 4)):
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} is a {type(image).__name__}; accepted: a torch.Tensor")
        if image.ndim != ndim or (ndim == 4 and 0 in image.shape[1:]):
            accepted = "[N, C, H, W] with at least one pixel" if ndim == 4 else "[N], with source_layout"
            raise ValueError(f"{name} has shape {tuple(image.shape)}; accepted: {accepted}")
        if image.dtype not in PASTE_DTYPES:
            raise TypeError(f"{name} has dtype {image.dtype}; accepted: float16, bfloat16, float32, float64, uint8")
    if source.dtype not in (target.dtype, torch.uint8):
        raise TypeError(f"source has dtype {source.dtype} and target {target.dtype}; accepted: equal dtypes, or uint8")
    if not packed and source.shape[1] != target.shape[1]:
        raise ValueError(f"source has {source.shape[1]} channels and target {target.shape[1]}; accepted: equal numbers")
    if source.device != target.device:
        raise ValueError(f"source is on {source.device} and target on {target.device}; accepted: the same device")


def require_polygons(target: Tensor, source: Tensor, polygons: Polygons) -> None:
    """Shapes, dtypes and devices of the polygons' tensors."""
    vertex_count = polygons.vertex_count
    if not isinstance(vertex_count, Tensor):
        raise TypeError(f"vertex_count is a {type(vertex_count).__name__}; accepted: a torch.Tensor")
    if vertex_count.ndim != 1:
        raise ValueError(f"vertex_count has shape {tuple(vertex_count.shape)}; accepted: [P], one for each polygon")
    count, channels = vertex_count.shape[0], target.shape[1]
    for name, tensor in zip(Polygons._fields, polygons, strict=True):
        if tensor is None and name in _OPTIONAL:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; accepted: a torch.Tensor{_OR_NONE.get(name, '')}")
        if name == "source_layout":
            if tensor.ndim != 2 or tensor.shape[1] != 3:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; accepted: [S, 3] offset, height, width")
        else:
            shape = (count, channels) if name in _COLORS else (count, *_WIDTHS.get(name, ()))
            if tensor.shape != shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}; accepted for {count} polygons: {list(shape)}"
                )
        if tensor.device != target.device:
            raise ValueError(f"{name} is on {tensor.device} and target on {target.device}; accepted: the same device")
        if tensor.dtype not in (INDEX_DTYPES if name in _INTEGERS else IMAGE_DTYPES):
            kind = "an integer" if name in _INTEGERS else "a floating"
            raise TypeError(f"{name} has dtype {tensor.dtype}; accepted: {kind} dtype")
    given = [name for name in _EDGE if getattr(polygons, name) is not None]
    if given and len(given) < len(_EDGE):
        missing = ", ".join(name for name in _EDGE if name not in given)
        raise ValueError(f"{missing} is None beside {', '.join(given)}; accepted: all of {', '.join(_EDGE)}, or none")
    if polygons.image_index is None and count % max(target.shape[0], 1) != 0:
        raise ValueError(
            f"image_index is None for {count} polygons and {target.shape[0]} images; accepted: an index "
            "for each polygon, or the same number of polygons for every image"
        )


def require_values(target: Tensor, source: Tensor, polygons: Polygons) -> None:
    """Values, where they can be read without waiting. Backends call it that are not faster at this themselves."""
    if not can_be_read(polygons.vertex_count):
        return
    used = polygons.vertex_count != 0
    for name, wrong, accepted in _problems(target, source, polygons, used):
        wrong = wrong & used
        if bool(wrong.any()):
            polygon = int(wrong.nonzero()[0])
            value = getattr(polygons, name)[polygon].tolist()
            raise ValueError(f"{name} of polygon {polygon} is {value}; accepted: {accepted}")


def require_value_range(value_range: tuple[float, float]) -> tuple[float, float]:
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range is {value_range!r}; accepted: (lowest, highest), both finite and in this order")
    return float(low), float(high)


def require_out(out: Tensor, target: Tensor) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"out is a {type(out).__name__}; accepted: a torch.Tensor, or None")
    for name in ("shape", "dtype", "device"):
        if getattr(out, name) != getattr(target, name):
            raise ValueError(
                f"out has {name} {getattr(out, name)} and target {getattr(target, name)}; accepted: the same {name}"
            )
    if any(stride == 0 and size > 1 for stride, size in zip(out.stride(), out.shape, strict=True)):
        raise ValueError(f"out has strides {out.stride()}; accepted: memory of its own for every element")


def _problems(target: Tensor, source: Tensor, polygons: Polygons, used: Tensor) -> Iterator[tuple[str, Tensor, str]]:
    """For each argument which polygons are wrong, and what is accepted; indices before what they point to."""
    count = polygons.vertex_count
    yield "vertex_count", (count < 3) | (count > MAX_VERTICES), f"0 or 3..{MAX_VERTICES}"
    in_polygon = torch.arange(MAX_VERTICES) < count.unsqueeze(1)
    yield "vertices", (~polygons.vertices.isfinite().all(dim=2) & in_polygon).any(dim=1), "finite numbers"
    if polygons.image_index is not None:
        yield "image_index", _outside(polygons.image_index, target.shape[0]), f"0..{target.shape[0] - 1}"
    layout = polygons.source_layout
    sources = source.shape[0] if layout is None else layout.shape[0]
    accepted = f"0..{sources - 1}" if sources else "nothing: the source holds no image, give it at least one"
    yield "source_index", _outside(polygons.source_index, sources), accepted
    if layout is not None and sources:
        offset, height, width = layout.long()[torch.where(used, polygons.source_index.long(), 0)].unbind(dim=1)
        end = offset + target.shape[1] * height * width
        wrong = (offset < 0) | (height < 1) | (width < 1) | (end > source.shape[0])
        yield "source_index", wrong, f"an image whose source_layout lies within the {source.shape[0]} values of source"
    yield "transform", ~polygons.transform.isfinite().flatten(1).all(dim=1), "finite numbers"
    yield (
        "blur_sigma",
        ~((polygons.blur_sigma >= 0) & (polygons.blur_sigma <= MAX_BLUR_SIGMA)),
        f"finite numbers of at least 0 and at most {MAX_BLUR_SIGMA:g}",
    )
    if polygons.strength is not None:
        yield "strength", ~((polygons.strength >= 0) & (polygons.strength <= 1)), "0..1"
    for name in _COLORS:
        values = getattr(polygons, name)
        if values is not None:
            yield name, ~values.isfinite().all(dim=1), "finite numbers"
    if polygons.blend_mode is not None:
        modes = ", ".join(f"{number} {mode}" for number, mode in enumerate(BLEND_MODES))
        yield "blend_mode", _outside(polygons.blend_mode, len(BLEND_MODES)), modes
    if polygons.edge_amplitude is not None and polygons.edge_grain is not None:
        amplitude, grain = polygons.edge_amplitude, polygons.edge_grain
        yield "edge_amplitude", ~((amplitude >= 0) & (amplitude <= MAX_EDGE_AMPLITUDE)), f"0..{MAX_EDGE_AMPLITUDE:g}"
        yield "edge_grain", ~((grain >= 1) & grain.isfinite()), "finite numbers of at least 1"


def _outside(index: Tensor, size: int) -> Tensor:
    return (index < 0) | (index >= size)
