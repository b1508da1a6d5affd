"""Counts of pixel scores on bins that follow the float32 bit pattern: any score range, memory that does not grow."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twostage.evaluation.regions import region_weights

IntArray = npt.NDArray[np.int64]
KeyArray = npt.NDArray[np.uint32]

_BINS_PER_PAGE_LOG2 = 13
BINS_PER_OCTAVE = 1 << _BINS_PER_PAGE_LOG2
"""Bins between two neighbouring powers of two: a bin is at most 2**-13 (0.012 %) of its scores wide."""
_PAGES = 512  # one for each sign and exponent of a float32
_DROPPED_BITS = 23 - _BINS_PER_PAGE_LOG2
KEYS_OF_A_BIN = 1 << _DROPPED_BITS
_SIGN = np.uint32(1 << 31)


def score_keys(scores: npt.NDArray[np.float32]) -> KeyArray:
    """A number for each score, same shape as ``scores``: higher where the score is higher, equal where it is equal.

    That holds over the whole of float32: the bit pattern of a positive float grows with it, that of a negative one is
    flipped. -0.0 counts as 0.0. Scores must be finite (the caller checks).
    """
    bits = (scores + np.float32(0.0)).view(np.uint32)
    negative = (bits & _SIGN) != 0
    return np.where(negative, ~bits, bits | _SIGN)


def key_bins(keys: KeyArray) -> IntArray:
    """The bin of each key, in 0 .. 2**22 - 1, same shape as ``keys``: it has the keys that share their upper bits."""
    return (keys >> np.uint32(_DROPPED_BITS)).astype(np.int64)


class SparseCounts:
    """int64 counts over the bins of ``key_bins``. A page of 64 KiB is held for each octave and sign met so far."""

    def __init__(self) -> None:
        self.pages: dict[int, IntArray] = {}

    def add(self, bins: IntArray) -> None:
        """Count each entry of ``bins`` (any shape) once."""
        present, local = self._local(bins)
        counts = np.bincount(local, minlength=len(present) * BINS_PER_OCTAVE)
        self._add_pages(present, counts)

    def add_weighted(self, bins: IntArray, weights: IntArray) -> None:
        """Add ``weights[i]`` to bin ``bins[i]`` ([N] both), in integers."""
        present, local = self._local(bins)
        sums = np.zeros(len(present) * BINS_PER_OCTAVE, dtype=np.int64)
        np.add.at(sums, local, weights)
        self._add_pages(present, sums)

    def merge(self, other: "SparseCounts") -> None:
        """Add the counts of ``other``."""
        for page, counts in other.pages.items():
            self._add_page(page, counts)

    def page(self, page: int) -> IntArray:
        """The counts of one octave, [BINS_PER_OCTAVE]; zeros where no score of it was met."""
        return self.pages.get(page, np.zeros(BINS_PER_OCTAVE, dtype=np.int64))

    def _local(self, bins: IntArray) -> tuple[IntArray, IntArray]:
        """Pages that occur in ``bins``, and the position of each bin when only those pages are laid end to end."""
        flat = bins.ravel()
        pages = flat >> _BINS_PER_PAGE_LOG2
        present = np.flatnonzero(np.bincount(pages, minlength=_PAGES))
        shift = np.zeros(_PAGES, dtype=np.int64)
        shift[present] = (np.arange(len(present)) - present) << _BINS_PER_PAGE_LOG2
        return present, flat + shift[pages]

    def _add_pages(self, present: IntArray, counts: IntArray) -> None:
        for page, row in zip(present.tolist(), counts.reshape(-1, BINS_PER_OCTAVE), strict=True):
            self._add_page(page, row)

    def _add_page(self, page: int, counts: IntArray) -> None:
        if page in self.pages:
            self.pages[page] += counts
        else:
            self.pages[page] = counts.copy()


@dataclass(frozen=True)
class PixelCounts:
    """What lies in each bin that is not empty, from the highest scores to the lowest."""

    normal: IntArray
    """[T] normal pixels."""
    defective: IntArray
    """[T] defective pixels."""
    region_weight: IntArray
    """[T] overlap with the defective regions, in units of ``regions.REGION_WEIGHT`` a region."""
    regions: int
    """Number of defective regions."""


class ScoreHistogram:
    """Scores of normal and of defective pixels, and of defective regions, in constant memory.

    There are 2**13 bins an octave (see ``key_bins``). Memory is 64 KiB for each of the three counts and each octave
    in which scores were met: 4 MiB for scores that span 20 octaves (1e-6 to 1), and 96 MiB if scores of every finite
    float32 magnitude and both signs occur. All counts are integers, so that the order of adding and merging
    changes nothing, bit for bit.
    """

    def __init__(self) -> None:
        self._normal = SparseCounts()
        self._defective = SparseCounts()
        self._region_weight = SparseCounts()
        self._regions = 0

    def add(self, keys: KeyArray, mask: npt.NDArray[np.bool_] | None) -> None:
        """Count the pixels of one image.

        Args:
            keys: [H, W], of the scores (see ``score_keys``), fewer than 2**31 pixels (the caller checks).
            mask: [H, W], True where defective; None where no pixel is.
        """
        bins = key_bins(keys)
        if mask is None or not mask.any():
            self._normal.add(bins)
            return
        self._normal.add(bins[~mask])
        self._defective.add(bins[mask])
        region_bins, weights, regions = region_weights(mask, bins)
        self._region_weight.add_weighted(region_bins, weights)
        self._regions += regions

    def merge(self, other: "ScoreHistogram") -> None:
        """Add the counts of ``other``: the same as if its images had been added here."""
        self._normal.merge(other._normal)
        self._defective.merge(other._defective)
        self._region_weight.merge(other._region_weight)
        self._regions += other._regions

    def __add__(self, other: "ScoreHistogram") -> "ScoreHistogram":
        total = ScoreHistogram()
        total.merge(self)
        total.merge(other)
        return total

    @property
    def nbytes(self) -> int:
        """Bytes held by the counts."""
        channels = (self._normal, self._defective, self._region_weight)
        return sum(page.nbytes for channel in channels for page in channel.pages.values())

    def occupied(self) -> tuple[IntArray, IntArray]:
        """The bins that are not empty, from the lowest scores to the highest, and the number of pixels in each."""
        pages = sorted(self._normal.pages.keys() | self._defective.pages.keys())
        counts = [self._normal.page(page) + self._defective.page(page) for page in pages]
        present = [np.flatnonzero(row) for row in counts]
        nothing = [np.zeros(0, dtype=np.int64)]
        bins = [row + page * BINS_PER_OCTAVE for page, row in zip(pages, present, strict=True)]
        return (
            np.concatenate(bins or nothing),
            np.concatenate([row[index] for row, index in zip(counts, present, strict=True)] or nothing),
        )

    def counts(self) -> PixelCounts:
        """The bins that are not empty, from the highest scores to the lowest."""
        # Regions' pixels are defective pixels: their pages hold no others.
        pages = sorted(self._normal.pages.keys() | self._defective.pages.keys(), reverse=True)
        rows: list[IntArray] = []
        for page in pages:
            row = np.stack([c.page(page)[::-1] for c in (self._normal, self._defective, self._region_weight)])
            rows.append(row[:, (row[0] > 0) | (row[1] > 0)])
        normal, defective, weight = np.concatenate(rows, axis=1) if rows else np.zeros((3, 0), dtype=np.int64)
        return PixelCounts(normal, defective, weight, self._regions)
