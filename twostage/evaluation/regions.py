"""Connected defective regions and their weight in the per-region overlap."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

IntArray = npt.NDArray[np.int64]

REGION_WEIGHT = 1 << 32
"""Every region counts this much in all. A fixed-point unit: sums of it are exact in any order."""
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int64)


def region_weights(mask: npt.NDArray[np.bool_], bins: IntArray) -> tuple[IntArray, IntArray, int]:
    """Share of every defective region that lies in each score bin.

    Regions are 8-connected, as in MVTec's evaluation script. A region's shares are rounded so that the sum over its
    bins is exactly ``REGION_WEIGHT`` and every partial sum, from the highest bin down, is off by less than one unit:
    its overlap at any threshold is known to 2**-32.

    Args:
        mask: [H, W], True where defective; fewer than 2**31 pixels.
        bins: [H, W] bin of each pixel's score, below 2**22.

    Returns:
        Bins [N] (a bin comes once for each region that has pixels in it), their weights [N], the number of regions.
    """
    labels, regions = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
    of_region = labels[mask].astype(np.int64) - 1
    area = np.bincount(of_region, minlength=regions)
    # Ascending keys are regions in order, and within a region scores from high to low.
    keys, counts = np.unique((of_region << 22) | (((1 << 22) - 1) - bins[mask]), return_counts=True)
    owner = keys >> 22
    before_region = np.cumsum(area) - area
    covered = np.cumsum(counts) - before_region[owner]
    upper = covered * REGION_WEIGHT // area[owner]
    lower = (covered - counts) * REGION_WEIGHT // area[owner]
    return ((1 << 22) - 1) - (keys & ((1 << 22) - 1)), upper - lower, int(regions)
