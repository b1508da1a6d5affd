"""AW-SSIM and SSIM on the CPU, and their registration: tensors in, tensors out, addresses in between."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twostage_kernels.native import similarity_cuda
from twostage_kernels.native.cuda import cuda_extension
from twostage_kernels.native.extension import chosen_instruction_set, extension
from twostage_kernels.native.numbers import FORMS, REDUCTIONS, TYPES
from twostage_kernels.reference.aw_ssim import COMMON_NOISE_VARIANCE
from twostage_kernels.registration import DeviceKernel, register_similarity
from twostage_kernels.settings import Settings, Similarity


def _run(
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
    assert extension is not None
    sigma, mask, weights, luminance, window_size, data_range, k1, k2, padding, l1_weight = settings
    form = FORMS["additive" if weights is not None else "product" if luminance else "contrast-structure"]
    alpha, beta, gamma = (0.0, 0.0, 0.0) if weights is None else weights
    # The names keep the tensors, and with them the addresses, alive.
    prediction, target, sigma = prediction.contiguous(), target.contiguous(), sigma.contiguous()
    mask = None if mask is None else mask.contiguous()
    scales = None if scales is None else scales.contiguous()
    upstream = None if upstream is None else upstream.contiguous()
    tensors = (prediction, target, sigma, mask, scales, upstream, value, scores, *gradients)
    extension.similarity(
        prediction.shape,
        window_size,
        padding == "same",
        form,
        (alpha, beta, gamma, (k1 * data_range) ** 2, (k2 * data_range) ** 2, COMMON_NOISE_VARIANCE * data_range**2),
        (l1_weight, data_range),
        TYPES[prediction.dtype],
        [0 if tensor is None else tensor.data_ptr() for tensor in tensors],
        REDUCTIONS[reduction],
        torch.get_num_threads(),
        chosen_instruction_set(),
    )


def objection(images: Tensor, settings: Settings) -> str | None:
    """Why the kernels for the images' device do not take these arguments; None where they do."""
    return similarity_cuda.objection(images, settings) if images.device.type == "cuda" else None


_KERNELS = {"cpu": DeviceKernel(_run)}
if cuda_extension is not None:
    _KERNELS["cuda"] = similarity_cuda.KERNEL
similarity: Similarity = register_similarity("native", _KERNELS)
