"""Launches the similarity kernels: tensors in, tensors filled."""

import contextlib
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from twostage_kernels.reference.aw_ssim import COMMON_NOISE_VARIANCE
from twostage_kernels.settings import Settings
from twostage_kernels.triton_gpu.device.reduction import reduce_kernel, rescale_kernel
from twostage_kernels.triton_gpu.device.stream import similarity_kernel
from twostage_kernels.triton_gpu.plan import Plan, fastest_plan, interpreted_plan

_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
_BLOCK = 1024  # elements of a program that reduces or rescales
# Registers of a thread where three programs of 128 threads are to share a multiprocessor.
_THIRD_OF_REGISTERS = 168


def constants_of_kernel(
    settings: Settings,
    images: torch.dtype,
    plan: Plan,
    gradients: int,
    *,
    value: bool,
    scores: bool,
    upstream: bool,
    difference: bool,
) -> dict[str, Any]:
    """What ``similarity_kernel`` is compiled for, the compiler's options included."""
    half = settings.window_size // 2
    constants = {
        "FORM": "additive"
        if settings.weights is not None
        else "product"
        if settings.luminance
        else "contrast-structure",
        "SAME": settings.padding == "same",
        "MASKED": settings.mask is not None,
        "UPSTREAM": upstream,
        "MAP": scores,
        "VALUE": value,
        "L1": difference,
        "GRADIENTS": gradients,
        "HALF": half,
        "G": plan.group,
        "N": plan.columns,
        "MARGIN": max(half, 1),
        "STRETCH": plan.stretch,
        "TYPE": _TYPES[settings.sigma.dtype],
        "num_warps": max(plan.group * plan.columns // 32, 1),
        "enable_fp_fusion": True,
    }
    # Elsewhere the compiler would have to spill some.
    frugal = images == torch.float32 and settings.mask is None and gradients < 2 and half <= 5 and plan.group == 1
    if frugal and plan.columns == 128 and torch.version.hip is None:
        constants["maxnreg"] = _THIRD_OF_REGISTERS
    return constants


def run(
    prediction: Tensor,
    target: Tensor,
    settings: Settings,
    reduction: str,
    *,
    scales: Tensor | None = None,
    upstream: Tensor | None = None,
    value: Tensor | None = None,
    scores: Tensor | None = None,
    gradients: Sequence[Tensor | None] = (None, None),
) -> None:
    """See :class:`twostage_kernels.registration.SimilarityKernel`."""
    if len(prediction) == 0:
        if value is not None:
            value.fill_(math.nan)
        return
    prediction, target = prediction.contiguous(), target.contiguous()
    settings = settings._replace(sigma=settings.sigma.contiguous(), mask=contiguous(settings.mask))
    scales, upstream = contiguous(scales), contiguous(upstream)
    by_prediction, by_target = gradients
    if by_target is not None and (by_prediction is None or _crowded(settings)):
        # With the images exchanged; both gradients at once would not fit into the registers.
        exchanged = target, prediction, settings, reduction, scales, upstream, value, scores
        _launch(*exchanged, (by_target, None))
        if by_prediction is None:
            return
        value = scores = by_target = None
    _launch(prediction, target, settings, reduction, scales, upstream, value, scores, (by_prediction, by_target))


def rescale(gradient: Tensor, factor: Tensor) -> None:
    """See :class:`twostage_kernels.registration.DeviceKernel`."""
    if gradient.numel() == 0:
        return
    elements = gradient[0].numel()
    blocks = math.ceil(elements / _BLOCK)
    with on_device(gradient):
        rescale_kernel[(len(gradient) * blocks,)](
            gradient,
            factor.contiguous(),
            elements,
            blocks,
            SAMPLE=factor.numel() > 1,
            BLOCK=_BLOCK,
            enable_fp_fusion=True,
        )


def _launch(
    prediction: Tensor,
    target: Tensor,
    settings: Settings,
    reduction: str,
    scales: Tensor | None,
    upstream: Tensor | None,
    value: Tensor | None,
    scores: Tensor | None,
    gradients: tuple[Tensor | None, Tensor | None],
) -> None:
    batch, channels, height, width = prediction.shape
    wanted = sum(gradient is not None for gradient in gradients)
    plan = _plan(prediction, settings, wanted > 0)
    strips = batch * channels * plan.strips_of_plane
    programs = math.ceil(strips / plan.group)
    loss = reduction == "loss"
    constants = constants_of_kernel(
        settings,
        prediction.dtype,
        plan,
        wanted,
        value=value is not None,
        scores=scores is not None,
        upstream=upstream is not None,
        difference=loss and settings.l1_weight > 0,
    )
    scales_without_mask = _scales_without_mask(prediction, settings, reduction)
    factors = [1.0, 0.0]
    if loss:
        factors = [settings.l1_weight - 1, settings.l1_weight / settings.data_range]
    if settings.mask is None:
        factors = [factor * scale for factor, scale in zip(factors, scales_without_mask, strict=True)]
    fields = (2 if settings.mask is None else 3) + (0, 5, 7)[wanted]
    room = programs * 2 * fields * plan.group * (plan.columns + 2 * constants["MARGIN"])
    scratch = torch.empty(room, dtype=settings.sigma.dtype, device=prediction.device)
    sums = None
    if value is not None:
        sums = torch.empty(2 * strips, dtype=torch.float64, device=prediction.device)
    with on_device(prediction):
        similarity_kernel[(programs,)](
            prediction,
            target,
            settings.sigma,
            settings.mask,
            scales,
            upstream,
            scores,
            *gradients,
            sums,
            scratch,
            channels,
            height,
            width,
            strips,
            plan.across,
            plan.segments,
            plan.rows,
            plan.first_row,
            plan.stretches,
            *_score_constants(settings),
            *as_bits(*factors),
            **constants,
        )
        if value is not None:
            reduce_kernel[(batch if reduction == "sample" else 1,)](
                sums,
                scales,
                value,
                batch,
                channels * plan.strips_of_plane,
                *as_bits(settings.highest, *scales_without_mask, settings.l1_weight, settings.data_range),
                MASKED=settings.mask is not None,
                SAMPLE=reduction == "sample",
                LOSS=loss,
                BLOCK=_BLOCK,
                TYPE=constants["TYPE"],
                enable_fp_fusion=True,
            )


def _crowded(settings: Settings) -> bool:
    return settings.sigma.dtype == torch.float64 or settings.window_size > 15


def _plan(images: Tensor, settings: Settings, gradients: bool) -> Plan:
    batch, channels, height, width = images.shape
    same, masked = settings.padding == "same", settings.mask is not None
    size = batch * channels, height, width, settings.window_size // 2, gradients, same, masked
    return fastest_plan(*size, _multiprocessors(images.device)) if images.is_cuda else interpreted_plan(*size)


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _score_constants(settings: Settings) -> tuple[int, ...]:
    weights = (0.0, 0.0, 0.0) if settings.weights is None else settings.weights
    unit = settings.data_range
    return as_bits(*weights, (settings.k1 * unit) ** 2, (settings.k2 * unit) ** 2, COMMON_NOISE_VARIANCE * unit * unit)


def _scales_without_mask(images: Tensor, settings: Settings, reduction: str) -> tuple[float, float]:
    """What the sums over windows and over pixels are multiplied by in a mean."""
    batch, channels, height, width = images.shape
    cut = 0 if settings.padding == "same" else settings.window_size - 1
    planes = channels * (1 if reduction == "sample" else batch)
    return 1 / (planes * (height - cut) * (width - cut)), 1 / (planes * height * width)


def as_bits(*numbers: float) -> tuple[int, ...]:
    """Each number's 64 bits as an integer, for ``images.number``."""
    return struct.unpack(f"{len(numbers)}q", struct.pack(f"{len(numbers)}d", *numbers))


def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Where Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
