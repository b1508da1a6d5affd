"""What the similarity kernels of csrc take, from tensors and settings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from twostage_kernels.reference.aw_ssim import COMMON_NOISE_VARIANCE
from twostage_kernels.settings import Settings

# Numbers of ImageType, Reduction and Form in csrc/similarity.h.
TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
_REDUCTIONS = {"mean": 0, "sample": 1, "loss": 2, "none": 3}
_FORMS = {"additive": 0, "product": 1, "contrast-structure": 2}


def similarity_arguments(
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
) -> tuple[tuple[Any, ...], Sequence[Tensor | None]]:
    """The arguments of a call, and the tensors whose addresses are among them: keep these until it has run.

    The parameters are those of :class:`twostage_kernels.registration.SimilarityKernel`.
    """
    sigma, mask, weights, luminance, window_size, data_range, k1, k2, padding, l1_weight = settings
    form = _FORMS["additive" if weights is not None else "product" if luminance else "contrast-structure"]
    alpha, beta, gamma = (0.0, 0.0, 0.0) if weights is None else weights
    c1, c2 = k1 * data_range, k2 * data_range
    prediction, target, sigma = prediction.contiguous(), target.contiguous(), sigma.contiguous()
    mask = None if mask is None else mask.contiguous()
    scales = None if scales is None else scales.contiguous()
    upstream = None if upstream is None else upstream.contiguous()
    tensors = (prediction, target, sigma, mask, scales, upstream, value, scores, *gradients)
    arguments = (
        prediction.shape,
        window_size,
        padding == "same",
        form,
        (alpha, beta, gamma, c1 * c1, c2 * c2, COMMON_NOISE_VARIANCE * (data_range * data_range)),
        (l1_weight, data_range),
        TYPES[prediction.dtype],
        [0 if tensor is None else tensor.data_ptr() for tensor in tensors],
        _REDUCTIONS[reduction],
    )
    return arguments, tensors
