"""The images that defects are cut from, and for every target those that look most like it."""

from collections.abc import Sequence
from copy import copy
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostage.data.order import evenly_spread
from twostage.data.packing import pack
from twostage.defects.appearance import cell_means, describe, distances, rank, units
from twostage.devices import sent
from twostage.errors import DataError

_MOST_SOURCES = 4096
_MOST_BYTES = 1 << 30
_TARGETS_FOR_SPREAD = 4096


class Pool(Protocol):
    """Source images, packed for the device, and for every target image those nearest to it."""

    values: Tensor
    """[N] all source images, one behind the other: uint8, or float32 in [0, 1] where one of them is not uint8."""
    layout: Tensor
    """[S, 3] int64: offset, height and width of each source image in ``values``."""
    means: Tensor
    """[S, C, 8, 8] float32: mean of each source image in every cell of a grid over it, in [0, 1]."""

    def candidates_of(self, images: Tensor) -> Tensor:
        """The sources of each of the given targets, nearest first: int64 [B] -> int64 [B, candidates]."""

    def to(self, device: torch.device) -> "Pool":
        """The pool with its tensors on ``device``."""


class SourcePool:
    """A :class:`Pool` whose candidates are ranked once, for all targets.

    Args:
        targets: the images that defects are pasted into, [C, H, W] each.
        sources: the images to cut from, [C, H, W] each; None takes the targets, none of them for itself.
        candidates: how many sources each target may draw from.

    Raises:
        DataError: there is no source, or a target would have only itself.
    """

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
        self.means = torch.stack([cell_means(image) for image in images])

    def candidates_of(self, images: Tensor) -> Tensor:
        return self.nearest[sent(images, self.nearest.device)]

    def to(self, device: torch.device) -> "SourcePool":
        moved = copy(self)
        for name in ("values", "layout", "means", "nearest"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved


class SampledPool:
    """A :class:`Pool` for any number of targets, in the memory of the sources alone: ranked when asked for.

    Args:
        target_features: what :func:`twostage.defects.appearance.describe` says of the targets, [T, 4 C]; may be mapped
            from a file. It is read where it is asked for.
        sources: the images to cut from, [C, H, W] each, more than one.
        own: the target that each source is, int64 [S]; None where they are other images. No target is cut from itself.
        candidates: how many sources each target may draw from.
    """

    def __init__(
        self,
        target_features: npt.NDArray[np.float32],
        sources: Sequence[Tensor],
        own: npt.NDArray[np.int64] | None,
        candidates: int,
    ) -> None:
        self.values, self.layout = pack(sources)
        self.means = torch.stack([cell_means(image) for image in sources])
        self.candidates = min(candidates, len(sources) - (own is not None))
        self._target_features = target_features
        features = torch.stack([describe(image) for image in sources])
        some = target_features[evenly_spread(len(target_features), _TARGETS_FOR_SPREAD)]
        self._unit = units(torch.from_numpy(some).to(features), features)
        self._scaled = features / self._unit
        self._own = torch.full((len(sources),), -1) if own is None else torch.from_numpy(own)
        self._own = self._own.to(features.device)

    def candidates_of(self, images: Tensor) -> Tensor:
        device = self._scaled.device
        features = sent(torch.from_numpy(self._target_features[images.numpy()]), device) / self._unit
        distance = distances(features, self._scaled)
        distance.masked_fill_(sent(images, device).unsqueeze(1) == self._own, torch.inf)
        return distance.topk(self.candidates, dim=1, largest=False).indices

    def to(self, device: torch.device) -> "SampledPool":
        moved = copy(self)
        for name in ("values", "layout", "means", "_unit", "_scaled", "_own"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved


def most_sources(bytes_of_image: float) -> int:
    """How many images of this size a pool takes at most: 4096, or what fits a gibibyte, and 64 in any case."""
    return int(min(max(_MOST_BYTES / max(bytes_of_image, 1), 64), _MOST_SOURCES))
