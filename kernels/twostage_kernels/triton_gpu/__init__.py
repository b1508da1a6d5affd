"""Kernels in Triton, for GPUs; in Triton's interpreter (TRITON_INTERPRET=1) for the CPU too.

Triton itself is imported when a kernel is asked for.
"""

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from twostage_kernels.feature_registration import FeatureDistance, register_feature_distance
from twostage_kernels.paste_arguments import Polygons
from twostage_kernels.paste_registration import PasteDefects, register_paste
from twostage_kernels.registration import DeviceKernel, register_similarity
from twostage_kernels.settings import Settings, Similarity

OLDEST_CAPABILITY = (7, 5)
MOST_TAPS = 21
# Above, a column's float64 sums would stand in memory rather than in registers.
MOST_FLOAT64_TAPS = 15
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def why_not_on_cuda() -> str | None:
    """Why no kernel can run on a GPU here; None where one can."""
    if not is_installed():
        return "triton is not installed"
    return _obstacle_on_gpus() or _import_error()


def why_not_on_cpu() -> str | None:
    """Why no kernel can run on the CPU here; None where one can."""
    if not is_installed():
        return "triton is not installed"
    if not _INTERPRETED:
        return "it runs on the CPU in Triton's interpreter alone (TRITON_INTERPRET=1)"
    return _import_error()


# torch.compile takes what they return for a constant, as torch.compiler.assume_constant_result would have it; but that
# imports the compiler, which takes a second.
for _probe in (why_not_on_cuda, why_not_on_cpu):
    vars(_probe)["_dynamo_marked_constant"] = True


def objection(images: Tensor, settings: Settings) -> str | None:
    """Why these images can not be scored with such settings; None where they can."""
    most = MOST_FLOAT64_TAPS if images.dtype == torch.float64 else MOST_TAPS
    if settings.window_size > most:
        return f"window_size is {settings.window_size}; accepted for {images.dtype}: up to {most}"
    return None


@cache
def is_installed() -> bool:
    """Whether there is a triton to import."""
    try:
        return find_spec("triton") is not None
    except ValueError:  # somebody has put an empty module in its place
        return False


@cache
def _obstacle_on_gpus() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    capability = torch.cuda.get_device_capability()
    if torch.version.hip is None and capability < OLDEST_CAPABILITY:
        names = ["compute capability {}.{}".format(*version) for version in (capability, OLDEST_CAPABILITY)]
        return f"{torch.cuda.get_device_name()} has {names[0]}; triton needs {names[1]}"
    return None


@cache
def _import_error() -> str | None:
    try:
        for module in ("launch", "paste_launch", "feature_launch"):
            import_module(f"twostage_kernels.triton_gpu.{module}")
    except ImportError as error:
        return f"triton does not load: {error}"
    return None


def _run(prediction: Tensor, target: Tensor, settings: Settings, reduction: str, **tensors: Any) -> None:
    from twostage_kernels.triton_gpu.launch import run

    run(prediction, target, settings, reduction, **tensors)


def _rescale(gradient: Tensor, factor: Tensor) -> None:
    from twostage_kernels.triton_gpu.launch import rescale

    rescale(gradient, factor)


def _paste(
    target: Tensor,
    source: Tensor,
    polygons: Polygons,
    value_range: tuple[float, float],
    out: Tensor,
    opacity: Tensor,
) -> None:
    from twostage_kernels.triton_gpu.paste_launch import run

    run(target, source, polygons, value_range, out, opacity)


def _measure(prediction: Tensor, target: Tensor, weights: Tensor, **tensors: Tensor | None) -> None:
    from twostage_kernels.triton_gpu.feature_launch import run

    run(prediction, target, weights, **tensors)


_DEVICES = ("cuda", "cpu") if _INTERPRETED else ("cuda",)
similarity: Similarity = register_similarity("triton", dict.fromkeys(_DEVICES, DeviceKernel(_run, _rescale)))
paste_defects: PasteDefects = register_paste("triton", dict.fromkeys(_DEVICES, _paste))
feature_distance: FeatureDistance = register_feature_distance("triton", dict.fromkeys(_DEVICES, _measure))
