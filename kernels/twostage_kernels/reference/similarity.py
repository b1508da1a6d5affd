"""AW-SSIM and SSIM by the maps of ``aw_ssim``, as every backend offers them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twostage_kernels.reference.aw_ssim import aw_ssim_map, ssim_map


def similarity(
    prediction: Tensor,
    target: Tensor,
    sigma: Tensor,
    weights: Sequence[float] | None,
    window_size: int,
    data_range: float,
    k1: float,
    k2: float,
    padding: str,
    reduction: str,
) -> Tensor:
    """The additive form with ``weights``, the product without; in ``sigma``'s precision, under autocast too."""
    with torch.autocast(prediction.device.type, enabled=False):
        x, y = prediction.to(sigma.dtype), target.to(sigma.dtype)
        if weights is None:
            values = ssim_map(x, y, sigma, window_size, data_range, k1, k2, padding)
        else:
            alpha, beta, gamma = weights
            values = aw_ssim_map(x, y, sigma, (alpha, beta, gamma), window_size, data_range, k1, k2, padding)
        if reduction == "none":
            return values
        per_sample = values.mean(dim=(1, 2, 3))
        if reduction == "sample":
            return per_sample
        return 1 - per_sample.mean() if reduction == "loss" else per_sample.mean()
