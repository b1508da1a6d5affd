"""Hold out normal images for validation."""

import hashlib
import heapq
from collections.abc import Sequence

import numpy as np

from twostage.data.listing import Lazy
from twostage.data.samples import Sample
from twostage.errors import ConfigError, DataError


def split_validation(
    samples: Sequence[Sample], fraction: float, seed: int, limit: int | None = None
) -> tuple[Sequence[Sample], tuple[Sample, ...]]:
    """Split normal training images into those that train and those that validate.

    Images are ranked by a hash of their file name (without its folders) and the seed, and the first ``fraction`` of
    them, rounded, validates: at least one, and at most ``limit`` and all but one. So the split does not depend on the
    order of the files or where they lie, and one more file moves at most one other from side to side.

    Returns:
        Train and validation samples, each in the order given.

    Raises:
        ConfigError: ``fraction`` is not between 0 and 1.
        DataError: there are fewer than two samples.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"data.validation_fraction is {fraction!r}; accepted: between 0 and 1")
    if len(samples) < 2:
        raise DataError(f"{len(samples)} training images; accepted: at least 2 (one trains, one validates)")
    most = len(samples) - 1 if limit is None else min(limit, len(samples) - 1)
    held_out = min(max(1, int(len(samples) * fraction + 0.5)), most)
    chosen = heapq.nsmallest(
        held_out, range(len(samples)), key=lambda index: (_rank(samples[index], seed), str(samples[index].path))
    )
    trains = np.ones(len(samples), dtype=bool)
    trains[chosen] = False
    kept = np.flatnonzero(trains)
    train = Lazy(len(kept), lambda number: samples[kept[number]])
    return train, tuple(samples[index] for index in sorted(chosen))


def _rank(sample: Sample, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{sample.path.name}".encode(errors="surrogateescape"), digest_size=8).digest()
