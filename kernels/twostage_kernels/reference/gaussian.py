"""The Gaussian window of Eq. 8, centred at (taps - 1) / 2 and normalised."""

import torch
from torch import Tensor


def gaussian_window(taps: int, sigma: Tensor) -> Tensor:
    """One window for each sigma: [N] pixels -> [N, taps], rows summing to 1.

    Eq. 8 prints the centre as zeta, the window size itself, which would put most of the weight on the last tap.
    """
    offset = torch.arange(taps, dtype=sigma.dtype, device=sigma.device) - (taps - 1) / 2
    # The ratio before the square: sigma**2 would underflow for the smallest sigmas.
    weights = torch.exp(-0.5 * (offset / sigma.unsqueeze(1)) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)
