"""Launches the kernel of ``feature_distance``: tensors in, tensors filled."""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from twostage_kernels.triton_gpu.device.features import feature_kernel
from twostage_kernels.triton_gpu.launch import on_device

_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
_MOST_CHANNELS = 512  # at a time
_VALUES = 2048  # of a program at a time
WARPS = 4


def constants_of_kernel(channels: int, number: torch.dtype) -> dict[str, Any]:
    """What ``feature_kernel`` is compiled for, the compiler's options included."""
    block = min(triton.next_power_of_2(channels), _MOST_CHANNELS)
    return {
        "CHANNELS": channels,
        "POSITIONS": _VALUES // max(block, 16),
        "BLOCK": block,
        "TYPE": _TYPES[number],
        "num_warps": WARPS,
        "enable_fp_fusion": True,
    }


def run(
    prediction: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    distance: Tensor | None = None,
    upstream: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    """See :class:`twostage_kernels.feature_registration.FeatureKernel`."""
    batch, channels, height, width = prediction.shape
    positions = batch * height * width
    if positions == 0:
        return
    prediction = prediction.contiguous(memory_format=torch.channels_last)
    target = target.contiguous(memory_format=torch.channels_last)
    constants = constants_of_kernel(channels, weights.dtype)
    with on_device(prediction):
        feature_kernel[(math.ceil(positions / constants["POSITIONS"]),)](
            prediction, target, weights, distance, upstream, gradient, positions, **constants
        )
