"""Makes a backend's ``paste_defects`` operators of torch: schema and fake kernel, new images and in place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from twostage_kernels.eager import is_eager
from twostage_kernels.operators import define, implement
from twostage_kernels.paste_arguments import Polygons
from twostage_kernels.precision import sum_dtype

_ARGUMENTS = (
    "Tensor source, Tensor vertices, Tensor vertex_count, Tensor? image_index, Tensor source_index, "
    "Tensor? source_layout, Tensor transform, Tensor blur_sigma, Tensor? strength, Tensor? color_gain, "
    "Tensor? color_offset, Tensor? blend_mode, Tensor? edge_amplitude, Tensor? edge_grain, Tensor? edge_seed, "
    "float low, float high"
)


class PasteKernel(Protocol):
    """Fills ``out`` (which may be ``target``) and ``opacity``.

    Shapes, dtypes and devices have been checked; unusable values raise on the CPU and are left out elsewhere.

    ``target`` and ``out`` may have any strides, ``opacity`` is contiguous.
    """

    def __call__(
        self,
        target: Tensor,  # [B, C, H, W]
        source: Tensor,  # [S, C, h, w], or [N] with polygons.source_layout
        polygons: Polygons,
        value_range: tuple[float, float],
        out: Tensor,  # [B, C, H, W]
        opacity: Tensor,  # [B, 1, H, W]
    ) -> None: ...


class PasteDefects(Protocol):
    """A backend's entry, for callers who have checked their arguments."""

    def __call__(
        self,
        target: Tensor,
        source: Tensor,
        polygons: Polygons,
        value_range: tuple[float, float],
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


def register_paste(backend: str, kernels: Mapping[str, PasteKernel]) -> PasteDefects:
    """Define the operators of ``backend``, with a kernel for each type of torch.device ("cpu", "cuda")."""
    new = define(f"{backend}_paste_defects", f"(Tensor target, {_ARGUMENTS}) -> (Tensor, Tensor)")
    in_place = define(f"{backend}_paste_defects_", f"(Tensor(a!) target, {_ARGUMENTS}) -> Tensor")

    def run_new(target: Tensor, source: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        images, opacity = torch.empty_like(target), _empty_opacity(target)
        kernels[target.device.type](target, source, *_split(arguments), images, opacity)
        return images, opacity

    def run_in_place(target: Tensor, source: Tensor, *arguments: Any) -> Tensor:
        opacity = _empty_opacity(target)
        kernels[target.device.type](target, source, *_split(arguments), target, opacity)
        return opacity

    def fake_new(target: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(target), _empty_opacity(target)

    def fake_in_place(target: Tensor, *_: Any) -> Tensor:
        return _empty_opacity(target)

    implement(new, kernels, run_new, fake_new)
    implement(in_place, kernels, run_in_place, fake_in_place)

    def paste(
        target: Tensor,
        source: Tensor,
        polygons: Polygons,
        value_range: tuple[float, float],
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        eager = is_eager(target, source, out, *polygons)
        if out is None:
            run: Callable[..., tuple[Tensor, Tensor]] = run_new if eager else new
            return run(target, source, *polygons, *value_range)
        if out is not target:
            out.copy_(target)
        return out, (run_in_place if eager else in_place)(out, source, *polygons, *value_range)

    return paste


def _split(arguments: Sequence[Any]) -> tuple[Polygons, tuple[float, float]]:
    *polygons, low, high = arguments
    return Polygons(*polygons), (low, high)


def _empty_opacity(target: Tensor) -> Tensor:
    batch, _, height, width = target.shape
    return torch.empty((batch, 1, height, width), dtype=sum_dtype(target), device=target.device)
