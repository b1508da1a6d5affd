"""In which order an epoch visits its samples: computed place by place, so that no set is too large for it."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

_IntArray = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_ORDER_STREAM, _SHARD_STREAM = 1, 6
_WINDOW = 4096


def evenly_spread(count: int, most: int) -> _IntArray:
    """At most ``most`` numbers out of 0 .. count - 1, evenly spread."""
    wanted = min(count, most)
    return np.arange(wanted, dtype=np.int64) * count // max(wanted, 1)


class Order(Protocol):
    """Which sample stands at a place of an epoch."""

    def samples_at(self, places: _IntArray, epoch: int) -> _IntArray:
        """Sample numbers at the given places, int64 [N] -> int64 [N]; different places have different samples."""


class Shuffled:
    """Every order of all samples is equally at home: for sets that can be read at any place.

    Args:
        count: samples in an epoch, at least 1.
        seed: of all orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed

    def samples_at(self, places: _IntArray, epoch: int) -> _IntArray:
        return permute(places, self.count, key_of(self.seed, _ORDER_STREAM, epoch))


class Lanes:
    """An order for sets that are read from one end to the other: shards in files.

    Every epoch lays the shards end to end in an order of its own and cuts the row into equal lanes; place p belongs to
    lane p mod ``lanes``. A lane goes from window to window, and only the samples of a window are mixed. So a reader of
    some lanes (of a batch's places r, r + W, r + 2 W, ... where W divides ``lanes``) reads its part of the shards once
    in an epoch, nearly in the order in which it lies there. What is left of the row after the last whole place of every
    lane is left out in that epoch.

    Args:
        shard_samples: samples in each shard, int64 [S], in the order of their numbers.
        lanes: at least 1, at most all samples.
        seed: of all orders.
        window: samples in the windows of all lanes together.
    """

    def __init__(self, shard_samples: _IntArray, lanes: int, seed: int, window: int = _WINDOW) -> None:
        self.shard_samples = shard_samples
        self.first_of_shard = np.cumsum(shard_samples) - shard_samples
        self.lanes = lanes
        self.seed = seed
        self.lane_length = int(shard_samples.sum()) // lanes
        self.window = max(1, window // lanes)
        self._row = (-1, shard_samples, shard_samples)

    def samples_at(self, places: _IntArray, epoch: int) -> _IntArray:
        """As :class:`Order`; places from 0 up to the largest multiple of ``lanes`` that fits the samples."""
        lane, along = places % self.lanes, places // self.lanes
        window, within = along // self.window, along % self.window
        size = np.minimum(self.window, self.lane_length - window * self.window)
        key = key_of(self.seed, _ORDER_STREAM, epoch)
        keys = _mix(np.uint64(key) ^ _mix((lane * (1 << 40) + window).astype(np.uint64)))
        row = lane * self.lane_length + window * self.window + permute(within, size, keys)
        shards, ends = self._shards_in_a_row(epoch)
        index = np.searchsorted(ends, row, side="right")
        shard = shards[index]
        found: _IntArray = self.first_of_shard[shard] + row - (ends[index] - self.shard_samples[shard])
        return found

    def _shards_in_a_row(self, epoch: int) -> tuple[_IntArray, _IntArray]:
        """The shards in the order of an epoch, and where in the row each of them ends."""
        known, shards, ends = self._row
        if known != epoch:
            count = len(self.shard_samples)
            shards = permute(np.arange(count), count, key_of(self.seed, _SHARD_STREAM, epoch))
            ends = np.cumsum(self.shard_samples[shards])
            self._row = (epoch, shards, ends)
        return shards, ends


def key_of(*numbers: int) -> int:
    """A 64-bit key from any integers of at least 0."""
    key = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        for word in (number & _WORD, number >> 64):
            key = _mix(key ^ np.uint64(word))
    return int(key[0])


def permute(places: _IntArray, counts: int | _IntArray, keys: int | _Words) -> _IntArray:
    """Where each place goes in a pseudo-random permutation of 0 .. count - 1 that its key chooses.

    A Feistel network over the next power of four, walked until the value is below the count.
    Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", Sec. 3 (cycle walking).

    Args:
        places: [N], each at least 0 and below its count.
        counts: one for all, or [N].
        keys: 64 bits, one for all or [N].
    """
    values = places.astype(np.uint64)
    limits = np.broadcast_to(np.asarray(counts, dtype=np.uint64), values.shape)
    words = np.broadcast_to(np.asarray(keys, dtype=np.uint64), values.shape)
    if len(values) == 0:
        return places.astype(np.int64)
    # frexp gives the bits of the largest value. Its own domain for each count: nothing depends on what else is asked.
    bits = np.frexp((limits - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)
    half = np.maximum((bits + np.uint64(1)) // np.uint64(2), np.uint64(1))
    outside = np.arange(len(values))
    while len(outside):
        values[outside] = _feistel(values[outside], half[outside], words[outside])
        outside = outside[values[outside] >= limits[outside]]
    return values.astype(np.int64)


def _feistel(values: _Words, half: _Words, keys: _Words) -> _Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for turn in range(_ROUNDS):
        word = np.uint64((turn + 1) * _GOLDEN & _WORD)
        left, right = right, left ^ (_mix(right ^ (keys + word)) & mask)
    return (left << half) | right


def _mix(words: _Words) -> _Words:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014). Sums and products wrap."""
    words = words + np.uint64(_GOLDEN)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
