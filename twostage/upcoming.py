"""What the next steps work on, drawn for many of them at once: a draw takes as long for one batch as for several."""

from collections.abc import Callable
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

    def batch(self, epoch: int, step: int) -> Tensor:
        """The numbers of all samples of a step of an epoch, those of the other processes too: int64 [batch_size]."""
        return self._block(epoch, step).batches[step % _STEPS]

    def samples(self, epoch: int, step: int) -> Tensor:
        """The numbers of this process's samples of a step of an epoch: int64 [B]."""
        own: Tensor = self._ranks.share(self.batch(epoch, step))
        return own

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
            self._blocks[key] = _Block(batches, lambda: self._draw(batches, epoch))
        return self._blocks[key]

    def _draw(self, batches: Tensor, epoch: int) -> list[Polygons]:
        samples = torch.cat([self._ranks.share(batch) for batch in batches])
        return self._defects.draw(samples, self._store.image_of(samples), epoch).split(len(batches))


class _Block:
    """Some steps' samples, and their defects once they are asked for."""

    def __init__(self, batches: Tensor, draw: Callable[[], list[Polygons]]) -> None:
        self.batches = batches  # int64 [steps, batch_size]
        self._draw = draw

    @cached_property
    def polygons(self) -> list[Polygons]:
        """Of each step."""
        return self._draw()
