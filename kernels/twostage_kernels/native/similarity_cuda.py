"""AW-SSIM and SSIM on NVIDIA's GPUs, on the current stream: tensors in, tensors out, addresses in between."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twostage_kernels.native.cuda import WINDOW_SIZES, cuda_extension, why_not_on
from twostage_kernels.native.numbers import FORMS, REDUCTIONS, TYPES
from twostage_kernels.reference.aw_ssim import COMMON_NOISE_VARIANCE
from twostage_kernels.registration import DeviceKernel
from twostage_kernels.settings import Settings


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
    assert cuda_extension is not None
    sigma, mask, weights, luminance, window_size, data_range, k1, k2, padding, l1_weight = settings
    form = FORMS["additive" if weights is not None else "product" if luminance else "contrast-structure"]
    alpha, beta, gamma = (0.0, 0.0, 0.0) if weights is None else weights
    # The names keep the tensors alive until all is queued; torch reuses their memory on this stream only, later.
    prediction, target, sigma = prediction.contiguous(), target.contiguous(), sigma.contiguous()
    mask = None if mask is None else mask.contiguous()
    scales = None if scales is None else scales.contiguous()
    upstream = None if upstream is None else upstream.contiguous()
    tensors = (prediction, target, sigma, mask, scales, upstream, value, scores, *gradients)
    call = cuda_extension.Similarity(
        prediction.shape,
        window_size,
        padding == "same",
        form,
        (alpha, beta, gamma, (k1 * data_range) ** 2, (k2 * data_range) ** 2, COMMON_NOISE_VARIANCE * data_range**2),
        (l1_weight, data_range),
        TYPES[prediction.dtype],
        [0 if tensor is None else tensor.data_ptr() for tensor in tensors],
        REDUCTIONS[reduction],
        prediction.get_device(),
    )
    with torch.cuda.device(prediction.device):
        workspace = torch.empty(call.workspace(), dtype=torch.uint8, device=prediction.device)
        call.run(workspace.data_ptr(), torch.cuda.current_stream().cuda_stream)


def rescale(gradient: Tensor, factor: Tensor) -> None:
    """See :class:`twostage_kernels.registration.DeviceKernel`."""
    assert cuda_extension is not None
    factor = factor.to(gradient.dtype).contiguous()
    with torch.cuda.device(gradient.device):
        cuda_extension.rescale(
            gradient.data_ptr(),
            factor.data_ptr(),
            gradient.dtype == torch.float64,
            len(gradient),
            gradient[0].numel() if len(gradient) else 0,
            factor.numel(),
            gradient.get_device(),
            torch.cuda.current_stream().cuda_stream,
        )


def objection(images: Tensor, settings: Settings) -> str | None:
    """Why the CUDA kernels do not take these arguments; None where they do."""
    smallest, largest = WINDOW_SIZES
    if not smallest <= settings.window_size <= largest:
        return f"window_size is {settings.window_size}; accepted by its CUDA kernels: {smallest} to {largest}"
    return why_not_on(images.device.index or 0)


KERNEL = DeviceKernel(run, rescale)
