"""The precision that images are computed in."""

import torch
from torch import Tensor


def sum_dtype(images: Tensor) -> torch.dtype:
    """What sums, positions and opacity are held in; values and gradients come in it too."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32
