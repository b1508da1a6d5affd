"""What the next steps work on, drawn for many of them at once: a draw takes as long for one batch as for several."""

from functools import cached_property

import torch
from torch import Tensor

from twostage.data.patches import Patches
from twostage.defects import DefectSampler, Polygons
from twostage.distributed import Ranks

# In a block. Blocks lie where they lie whatever the first step was, so that a resumed training draws the same numbers.
_STEPS = 16
# The one at work, and the one whose batches are read ahead.
_BLOCKS = 2


class Upcoming:
    """The samples and the defects of an epoch's steps, this process's share of them.

    Args:
        store, defects: what draws them.
        batch_size: patches in a step, of all processes together.
        steps_in_epoch: at least 1.
        ranks: who shares the batches.
    """

    def __init__(
        self, store: Patches, defects: DefectSampler, batch_size: int, steps_in_epoch: int, ranks: Ranks
    ) -> None:
        self._store = store
        self._defects = defects
        self._batch_size = batch_size
        self._steps_in_epoch = steps_in_epoch
        self._ranks = ranks
        self._blocks: dict[tuple[int, int], _Block] = {}

    def samples(self, epoch: int, step: int) -> Tensor:
        """The numbers of the samples of a step of an epoch: int64 [B]."""
        return self._block(epoch, step).samples[step % _STEPS]

    def polygons(self, epoch: int, step: int) -> Polygons:
        """The defects of these samples."""
        return self._block(epoch, step).polygons[step % _STEPS]

    def _block(self, epoch: int, step: int) -> "_Block":
        key = epoch, step // _STEPS
        if key not in self._blocks:
            while len(self._blocks) >= _BLOCKS:
                del self._blocks[min(self._blocks)]
            first = key[1] * _STEPS
            count = min(_STEPS, self._steps_in_epoch - first)
            places = torch.arange(first * self._batch_size, (first + count) * self._batch_size)
            batches = self._store.samples_at(places, epoch).view(count, self._batch_size)
            samples = tuple(self._ranks.share(batch) for batch in batches)
            self._blocks[key] = _Block(self._store, self._defects, samples, epoch)
        return self._blocks[key]


class _Block:
    def __init__(self, store: Patches, defects: DefectSampler, samples: tuple[Tensor, ...], epoch: int) -> None:
        self.samples = samples
        self._store = store
        self._defects = defects
        self._epoch = epoch

    @cached_property
    def polygons(self) -> list[Polygons]:
        """Of each step."""
        samples = torch.cat(self.samples)
        drawn = self._defects.draw(samples, self._store.image_of(samples), self._epoch)
        return drawn.split(len(self.samples))
