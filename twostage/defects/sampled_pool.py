"""Sources of defects for sets that are too large to cut from all of it: some of the images, ranked when asked for."""

from collections.abc import Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.data.packing import pack, to_unit_range
from twostage.defects.sources import MEAN_GRID, SourcePool, describe
from twostage.devices import sent

_MOST_SOURCES = 4096
_MOST_BYTES = 1 << 30
_TARGETS_FOR_SPREAD = 4096


class SampledPool(SourcePool):
    """Sources for any number of targets, in the memory of the sources alone.

    Args:
        target_features: what :func:`twostage.defects.sources.describe` says of the targets, [T, 4 C]; may be mapped
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
        self.means = torch.stack([F.adaptive_avg_pool2d(to_unit_range(image), MEAN_GRID) for image in sources])
        self.candidates = min(candidates, len(sources) - (own is not None))
        self._target_features = target_features
        features = torch.stack([describe(image) for image in sources])
        some = target_features[evenly_spread(len(target_features), _TARGETS_FOR_SPREAD)]
        # Every feature counts by its spread over the pool, so that none decides by its unit alone.
        self._spread = torch.cat((features, torch.from_numpy(some).to(features))).std(dim=0).clamp_min(1e-6)
        self._scaled = features / self._spread
        self._own = torch.full((len(sources),), -1) if own is None else torch.from_numpy(own)
        self._own = self._own.to(features.device)

    def candidates_of(self, images: Tensor) -> Tensor:
        device = self._scaled.device
        features = sent(torch.from_numpy(self._target_features[images.numpy()]), device) / self._spread
        distance = torch.cdist(features, self._scaled, compute_mode="donot_use_mm_for_euclid_dist")
        distance.masked_fill_(sent(images, device).unsqueeze(1) == self._own, torch.inf)
        return distance.topk(self.candidates, dim=1, largest=False).indices

    def to(self, device: torch.device) -> "SampledPool":
        moved = copy(self)
        for name in ("values", "layout", "means", "_spread", "_scaled", "_own"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved


def most_sources(bytes_of_image: float) -> int:
    """How many images of this size a pool takes at most: 4096, or what fits a gibibyte, and 64 in any case."""
    return int(min(max(_MOST_BYTES / bytes_of_image, 64), _MOST_SOURCES))


def evenly_spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` numbers out of 0 .. count - 1, evenly spread."""
    wanted = min(count, most)
    return np.arange(wanted, dtype=np.int64) * count // max(wanted, 1)
