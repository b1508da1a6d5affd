"""Where defects are cut from: a pool of images, ranked for every target by colour and appearance."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.config import DataConfig
from twostage.data import read_image, require_clean, resize_shorter_side
from twostage.data.packing import pack, to_unit_range
from twostage.data.samples import finding_of
from twostage.devices import sent
from twostage.errors import DataError

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


class SourcePool:
    """Source images, packed for the device, and for every target image those nearest to it.

    Args:
        targets: the images that defects are pasted into, [C, H, W] each.
        sources: the images to cut from, [C, H, W] each; None takes the targets, none of them for itself.
        candidates: how many sources each target may draw from.

    Raises:
        DataError: there is no source, or a target would have only itself.
    """

    values: Tensor
    """[N] all source images, one behind the other: uint8, or float32 in [0, 1] where one of them is not uint8."""
    layout: Tensor
    """[S, 3] int64: offset, height and width of each source image in ``values``."""
    means: Tensor
    """[S, C, 8, 8] float32: mean of each source image in every cell of a grid over it, in [0, 1]."""
    nearest: Tensor
    """[targets, candidates] int64: the sources of each target, the nearest first."""

    def __init__(self, targets: Sequence[Tensor], sources: Sequence[Tensor] | None, candidates: int) -> None:
        own = sources is None
        images = targets if sources is None else sources
        available = len(images) - int(own)
        if available < 1:
            raise DataError(
                f"the pool of defect sources holds {len(images)} image(s); accepted: at least {1 + int(own)} "
                "(add normal images, or name a folder of other images with defects.sources)"
            )
        target_features = torch.stack([describe(image) for image in targets])
        source_features = target_features if own else torch.stack([describe(image) for image in images])
        self.nearest = rank(target_features, source_features, min(candidates, available), leave_out_own=own)
        self.values, self.layout = pack(images)
        self.means = torch.stack([F.adaptive_avg_pool2d(to_unit_range(image), MEAN_GRID) for image in images])

    def candidates_of(self, images: Tensor) -> Tensor:
        """The sources of each of the given targets, nearest first: int64 [B] -> int64 [B, candidates]."""
        return self.nearest[sent(images, self.nearest.device)]

    def to(self, device: torch.device) -> "SourcePool":
        """The pool with its tensors on ``device``."""
        moved = copy(self)
        for name in ("values", "layout", "means", "nearest"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved


def rank(targets: Tensor, sources: Tensor, count: int, *, leave_out_own: bool) -> Tensor:
    """The ``count`` sources nearest to each target by their descriptions, nearest first: int64 [T, count].

    Takes the memory of some targets' distances at a time, never of all.

    Args:
        targets: [T, D].
        sources: [S, D].
        leave_out_own: targets and sources are the same images, and none is its own source.
    """
    # Every feature counts by its spread over the pool, so that none decides by its unit alone.
    spread = torch.cat((targets, sources)).std(dim=0).clamp_min(1e-6)
    targets, sources = targets / spread, sources / spread
    rows = max(1, _DISTANCES_AT_ONCE // len(sources))
    nearest = []
    for first in range(0, len(targets), rows):
        some = targets[first : first + rows]
        distance = torch.cdist(some, sources, compute_mode="donot_use_mm_for_euclid_dist")
        if leave_out_own:
            distance.diagonal(first).fill_(torch.inf)
        nearest.append(distance.topk(count, dim=1, largest=False).indices)
    return torch.cat(nearest)


def load_sources(folder: Path, config: DataConfig, color: Literal["gray", "rgb"], *, smallest: int) -> list[Tensor]:
    """Every image in a folder and its subfolders, in the order of their paths.

    Args:
        folder: of images of any kind and size.
        config: the size limit.
        color: of the target images.
        smallest: images with a shorter side below this many pixels are enlarged to it.

    Raises:
        DataError: the folder is missing or holds no file, or files are no accepted images; all of them are listed.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        problem = "holds no file" if folder.is_dir() else "is no folder"
        raise DataError(f"defects.sources {folder} {problem}; accepted: a folder of images to cut defects from")
    images, findings = [], []
    for path in paths:
        try:
            image = read_image(path, color=color, max_pixels=config.max_pixels)
        except DataError as error:
            findings.append(finding_of(path, error))
            continue
        images.append(resize_shorter_side(image, smallest) if min(image.shape[1:]) < smallest else image)
    require_clean(findings)
    return images
