"""``fused_ssim`` as the package fused-ssim has it."""

from torch import Tensor

from twostage_kernels import functional
from twostage_kernels.functional.similarity import Padding


def fused_ssim(
    img1: Tensor,  # [B, C, H, W]
    img2: Tensor,  # [B, C, H, W]
    padding: Padding = "same",
    train: bool = True,
) -> Tensor:
    """Mean :func:`twostage_kernels.ssim` of images in [0, 1]; ``train`` changes nothing.

    Both images get gradients, where they ask for them. The errors are those of :func:`twostage_kernels.ssim`.
    """
    return functional.ssim(img1, img2, padding=padding)
