"""AW-SSIM and SSIM on NVIDIA's GPUs, on the current stream: tensors in, tensors out, addresses in between."""

from typing import Any

import torch
from torch import Tensor

from twostage_kernels.native.arguments import similarity_arguments
from twostage_kernels.native.cuda import WINDOW_SIZES, cuda_extension, why_not_on
from twostage_kernels.registration import DeviceKernel
from twostage_kernels.settings import Settings


def run(prediction: Tensor, target: Tensor, settings: Settings, reduction: str, **tensors: Any) -> None:
    """See :class:`twostage_kernels.registration.SimilarityKernel`."""
    assert cuda_extension is not None
    # Kept until all is queued: torch reuses their memory on this stream only, later.
    arguments, _kept = similarity_arguments(prediction, target, settings, reduction, **tensors)
    call = cuda_extension.Similarity(*arguments, prediction.get_device())
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
