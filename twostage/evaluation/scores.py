"""Every pixel score of a test set, for figures that bins cannot give: in memory while they are few, then in a file."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twostage.errors import OutputError
from twostage.evaluation.histogram import KEYS_OF_A_BIN, KeyArray
from twostage.files import ScratchFile

_IN_MEMORY = 1 << 24  # scores, of 4 bytes
_LANDMARK = 4096
_KEY = np.dtype(np.uint32)
_PIECE = 1 << 22

IntArray = npt.NDArray[np.int64]


class Group(NamedTuple):
    """Pixels that are counted together."""

    kind: str
    """Of the images they are in."""
    defective: bool


class KeyCounts(NamedTuple):
    """How often each key occurs, from the lowest key to the highest; those that do not occur are left out."""

    keys: KeyArray  # [N]
    counts: IntArray  # [N]

    @classmethod
    def sum(cls, parts: Sequence["KeyCounts"]) -> "KeyCounts":
        """Counts of all ``parts`` together."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return NO_KEYS
        keys, owner = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, owner, np.concatenate([part.counts for part in parts]))
        return cls(keys, counts)


NO_KEYS = KeyCounts(np.empty(0, np.uint32), np.empty(0, np.int64))


class _Run:
    """Sorted keys, in memory or in a file, of which then every 4096th is known without reading."""

    def __init__(self, keys: KeyArray, file: ScratchFile | None = None) -> None:
        self._known = keys if file is None else keys[::_LANDMARK].copy()
        self._file = file
        self._begin = 0 if file is None else file.append(keys)
        self._size = len(keys)

    def pieces(self, first: int, last: int) -> Iterator[KeyArray]:
        """The keys from ``first`` to ``last``, both included, in parts of bounded size."""
        begin = int(np.searchsorted(self._known, np.uint32(first), "left"))
        end = int(np.searchsorted(self._known, np.uint32(last), "right"))
        if self._file is None:
            yield self._known[begin:end]
            return
        begin, end = max(begin - 1, 0) * _LANDMARK, min(end * _LANDMARK, self._size)
        for start in range(begin, end, _PIECE):
            keys = self._read(start, min(start + _PIECE, end) - start)
            yield keys[
                np.searchsorted(keys, np.uint32(first), "left") : np.searchsorted(keys, np.uint32(last), "right")
            ]

    def __reduce__(self) -> tuple[type["_Run"], tuple[KeyArray]]:
        """A copy elsewhere has no file: it holds its keys in memory."""
        return _Run, (self._known if self._file is None else self._read(0, self._size),)

    def _read(self, start: int, count: int) -> KeyArray:
        assert self._file is not None
        return self._file.read(self._begin + start * _KEY.itemsize, count, _KEY)


class PixelScores:
    """The keys (see ``histogram.score_keys``) of all pixels, by :class:`Group`.

    Up to ``in_memory`` of them wait in memory, at 4 bytes each. When there are more they are sorted and appended to a
    temporary file, which is gone when nobody refers to it any more; it lies where the standard library's ``tempfile``
    puts such files (environment: TMPDIR).
    """

    def __init__(self, *, in_memory: int = _IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._waiting: dict[Group, list[KeyArray]] = defaultdict(list)
        self._runs: dict[Group, list[_Run]] = defaultdict(list)
        self._count = 0
        self._file: ScratchFile | None = None

    def add(self, keys: KeyArray, group: Group) -> None:
        """Add pixels of one group, in any shape.

        Raises:
            OutputError: the temporary file cannot be written.
        """
        if keys.size == 0:
            return
        self._waiting[group].append(keys.ravel())
        self._count += keys.size
        if self._count > self._in_memory:
            self._store()

    def merge(self, other: "PixelScores") -> None:
        """Add the pixels of ``other``; a file of its is read, not copied."""
        for group, runs in other._runs.items():
            self._runs[group] += runs
        for group, parts in other._waiting.items():
            for keys in parts:
                self.add(keys, group)

    def sorted(self) -> "SortedScores":
        """All that was added so far. What waits in memory is sorted for it, and still waits."""
        runs = {group: list(parts) for group, parts in self._runs.items()}
        for group, parts in self._waiting.items():
            runs.setdefault(group, []).append(_Run(_sorted(parts)))
        return SortedScores(runs)

    def _store(self) -> None:
        try:
            self._file = self._file or ScratchFile()
            for group, parts in self._waiting.items():
                self._runs[group].append(_Run(_sorted(parts), self._file))
        except OSError as error:
            raise OutputError(
                f"pixel scores cannot be kept in {tempfile.gettempdir()}: {error}; accepted: a folder with 4 bytes for "
                "each pixel of the test set (environment: TMPDIR)"
            ) from error
        self._waiting.clear()
        self._count = 0

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}


def _sorted(parts: Sequence[KeyArray]) -> KeyArray:
    keys = np.concatenate(parts)
    keys.sort()
    return keys


class SortedScores:
    """Pixels by group, whose keys can be counted range by range."""

    def __init__(self, runs: dict[Group, list[_Run]]) -> None:
        self._runs = runs

    def count(self, first: int, last: int) -> dict[Group, KeyCounts]:
        """Counts of each group's keys from ``first`` to ``last``, both included.

        Memory: a few times that of the pixels in the range; in a range as narrow as a bin it does not depend on them.
        """
        return {group: _count(runs, first, last) for group, runs in self._runs.items()}


def _count(runs: Sequence[_Run], first: int, last: int) -> KeyCounts:
    pieces = (piece for run in runs for piece in run.pieces(first, last) if piece.size)
    if last - first >= KEYS_OF_A_BIN:
        found = list(pieces)
        return KeyCounts(*np.unique(np.concatenate(found), return_counts=True)) if found else NO_KEYS
    counts = np.zeros(last - first + 1, dtype=np.int64)
    for piece in pieces:
        counts += np.bincount(piece - np.uint32(first), minlength=len(counts))
    present = np.flatnonzero(counts)
    return KeyCounts((present + first).astype(np.uint32), counts[present])
