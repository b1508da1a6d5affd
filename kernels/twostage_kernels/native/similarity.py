"""AW-SSIM and SSIM on the CPU, and their registration: tensors in, tensors out, addresses in between."""

from typing import Any

import torch
from torch import Tensor

from twostage_kernels.native import similarity_cuda
from twostage_kernels.native.arguments import similarity_arguments
from twostage_kernels.native.cuda import cuda_extension
from twostage_kernels.native.extension import chosen_instruction_set, extension
from twostage_kernels.registration import DeviceKernel, register_similarity
from twostage_kernels.settings import Settings, Similarity


def _run(prediction: Tensor, target: Tensor, settings: Settings, reduction: str, **tensors: Any) -> None:
    assert extension is not None
    arguments, _kept = similarity_arguments(prediction, target, settings, reduction, **tensors)
    extension.similarity(*arguments, torch.get_num_threads(), chosen_instruction_set())


def objection(images: Tensor, settings: Settings) -> str | None:
    """Why the kernels for the images' device do not take these arguments; None where they do."""
    return similarity_cuda.objection(images, settings) if images.is_cuda else None


_KERNELS = {"cpu": DeviceKernel(_run, Tensor.mul_)}
if cuda_extension is not None:
    _KERNELS["cuda"] = similarity_cuda.KERNEL
similarity: Similarity = register_similarity("native", _KERNELS)
