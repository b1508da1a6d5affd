"""How much of the windows and pixels a mask lets through, which a masked mean is divided by."""

import torch
from torch import Tensor

from twostage_kernels.reference.gaussian import gaussian_window
from twostage_kernels.settings import Settings


def mask_scales(images: Tensor, settings: Settings, reduction: str) -> Tensor | None:
    """What the sums over windows and over pixels are multiplied by to give each sample's part of the value: [B, 2].

    That is 1 / (channels * coverage of all windows) and 1 / (channels * mask of all pixels), of the sample for
    "sample" and of the batch otherwise; 0 where nothing is seen. None without a mask.
    """
    mask = settings.mask
    if mask is None:
        return None
    window = gaussian_window(settings.window_size, settings.sigma)
    rows, columns = (_reach(length, window, settings.padding) for length in mask.shape[2:])
    windows = torch.einsum("bhw,bh,bw->b", mask[:, 0], rows, columns)
    totals = torch.stack((windows, mask.sum(dim=(1, 2, 3))), dim=1) * images.shape[1]
    if reduction != "sample":
        totals = totals.sum(dim=0, keepdim=True).expand_as(totals)
    return torch.where(totals > 0, 1 / totals, 0)


def _reach(length: int, window: Tensor, padding: str) -> Tensor:
    """The weight of each pixel along one axis, summed over all windows: [B, taps] -> [B, length].

    Padding counts for the border pixel that its mask is taken from.
    """
    taps = window.shape[1]
    half = taps // 2
    margin = half if padding == "same" else 0
    windows = length + 2 * margin - taps + 1
    pixel = torch.arange(length, device=window.device)
    reach = window.new_zeros(len(window), length)
    for tap in range(taps):
        # This tap of the windows covers the padded pixels tap .. tap + windows - 1.
        first, last = tap - margin, tap - margin + windows - 1
        seen = ((pixel >= first) & (pixel <= last)).to(window.dtype)
        seen[0] += min(max(-first, 0), windows)
        seen[-1] += min(max(last - length + 1, 0), windows)
        reach += window[:, tap : tap + 1] * seen
    return reach
