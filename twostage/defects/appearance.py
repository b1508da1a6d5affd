"""What an image looks like, as a few numbers, and which images look alike."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.data.packing import to_unit_range

MEAN_GRID = 8
"""Cells along each axis of an image whose means are kept."""
_DISTANCES_AT_ONCE = 1 << 24


def describe(image: Tensor) -> Tensor:
    """Colour and appearance of an image as a vector: [C, H, W] -> [4 C].

    For each channel the mean and standard deviation (colour, contrast) and the mean absolute slopes along both axes
    (fineness and direction of the texture).
    """
    values = to_unit_range(image)
    slope_y = values.diff(dim=1).abs().mean(dim=(1, 2))
    slope_x = values.diff(dim=2).abs().mean(dim=(1, 2))
    return torch.cat((values.mean(dim=(1, 2)), values.std(dim=(1, 2)), slope_y, slope_x))


def cell_means(image: Tensor) -> Tensor:
    """Mean of an image in every cell of a grid over it: [C, H, W] -> [C, 8, 8] in [0, 1]."""
    return F.adaptive_avg_pool2d(to_unit_range(image), MEAN_GRID)


def units(targets: Tensor, sources: Tensor) -> Tensor:
    """What each number of a description is measured in, [D]: its spread, so that none decides by its unit alone."""
    return torch.cat((targets, sources)).std(dim=0).clamp_min(1e-6)


def distances(targets: Tensor, sources: Tensor) -> Tensor:
    """Between descriptions in their units: [T, D], [S, D] -> [T, S]."""
    return torch.cdist(targets, sources, compute_mode="donot_use_mm_for_euclid_dist")


def rank(targets: Tensor, sources: Tensor, count: int, *, leave_out_own: bool) -> Tensor:
    """The ``count`` sources nearest to each target by their descriptions, nearest first: int64 [T, count].

    Takes the memory of some targets' distances at a time, never of all.

    Args:
        targets: [T, D].
        sources: [S, D].
        leave_out_own: targets and sources are the same images, and none is its own source.
    """
    unit = units(targets, sources)
    targets, sources = targets / unit, sources / unit
    rows = max(1, _DISTANCES_AT_ONCE // len(sources))
    nearest = []
    for first in range(0, len(targets), rows):
        distance = distances(targets[first : first + rows], sources)
        if leave_out_own:
            distance.diagonal(first).fill_(torch.inf)
        nearest.append(distance.topk(count, dim=1, largest=False).indices)
    return torch.cat(nearest)
