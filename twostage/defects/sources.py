"""Where defects are cut from: a pool of images, ranked for every target by colour and appearance."""

from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.config import DataConfig
from twostage.data import read_image, require_clean, resize_shorter_side
from twostage.data.patches import to_unit_range
from twostage.data.samples import finding_of
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


def pack(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images [C, H, W] one behind the other, [N], and where they lie, int64 [S, 3]: offset, height, width.

    Images that lie in one piece of memory already (:func:`into_one_piece`) are not copied.
    """
    first = images[0]
    pieces = {image.untyped_storage().data_ptr() for image in images}
    if len(pieces) == 1 and all(image.is_contiguous() for image in images):
        offsets = [int(image.storage_offset()) for image in images]
        values = first.new_empty(0).set_(first.untyped_storage())
    else:
        if any(image.dtype != torch.uint8 for image in images):
            images = [to_unit_range(image) for image in images]
        offsets = [0, *accumulate(image.numel() for image in images)][:-1]
        values = torch.cat([image.flatten() for image in images])
    layout = [(offset, image.shape[1], image.shape[2]) for offset, image in zip(offsets, images, strict=True)]
    return values, torch.tensor(layout, dtype=torch.int64)


def into_one_piece(images: list[Tensor]) -> list[Tensor]:
    """The same images in one piece of memory. Empties the list, so that memory does not hold them twice."""
    if not images:
        return []
    integers = all(image.dtype == torch.uint8 for image in images)
    values = torch.empty(sum(image.numel() for image in images), dtype=torch.uint8 if integers else torch.float32)
    placed = []
    offset = 0
    images.reverse()
    while images:
        image = images.pop()
        place = values[offset : offset + image.numel()].view(image.shape)
        offset += image.numel()
        placed.append(place.copy_(image if integers else to_unit_range(image)))
    return placed


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
