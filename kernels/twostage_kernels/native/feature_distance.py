"""``feature_distance`` on the CPU, and its registration: tensors in, tensors out, addresses in between."""

import torch
from torch import Tensor

from twostage_kernels.feature_registration import FeatureDistance, register_feature_distance
from twostage_kernels.native.arguments import TYPES
from twostage_kernels.native.extension import chosen_instruction_set, extension


def _run(
    prediction: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    distance: Tensor | None = None,
    upstream: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    assert extension is not None
    batch, channels, height, width = prediction.shape
    # The names keep the tensors, and with them the addresses, alive.
    prediction = prediction.contiguous(memory_format=torch.channels_last)
    target = target.contiguous(memory_format=torch.channels_last)
    tensors = (prediction, target, weights, distance, upstream, gradient)
    extension.feature_distance(
        batch * height * width,
        channels,
        TYPES[prediction.dtype],
        TYPES[target.dtype],
        [0 if tensor is None else tensor.data_ptr() for tensor in tensors],
        torch.get_num_threads(),
        chosen_instruction_set(),
    )


feature_distance: FeatureDistance = register_feature_distance("native", {"cpu": _run})
