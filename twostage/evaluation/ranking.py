"""Pixel AuROC to the last pixel: every defective pixel against every normal one, in memory that does not grow."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from twostage.evaluation.histogram import KEYS_OF_A_BIN, ScoreHistogram
from twostage.evaluation.scores import NO_KEYS, Group, KeyCounts, SortedScores

_PIXELS_AT_ONCE = 1 << 21

Gather = Callable[[Any], Sequence[Any]]
"""Gives, to each of the processes that call it together, what every one of them has passed."""


def pixel_aurocs(
    histogram: ScoreHistogram, scores: SortedScores, good: str, gather: Gather, *, at_once: int = _PIXELS_AT_ONCE
) -> dict[str | None, float]:
    """The chance that a defective pixel scores above a normal one, ties counting half; nan where there is no pair.

    Comparisons are counted in integers, so that neither the order of the pixels nor their division among processes
    changes the result.

    Args:
        histogram: all pixels of all processes.
        scores: the pixels of this process.
        good: the kind of images without a defect.
        at_once: about how many pixels are compared with each other at a time.

    Returns:
        By kind of defect: its pixels against the normal ones of its own images and of good images. By None: all.
    """
    normal: Counter[str | None] = Counter()
    defective: Counter[str | None] = Counter()
    won: Counter[str | None] = Counter()
    for first, last in _ranges(histogram, at_once):
        found = _of_all(gather(scores.count(first, last)))
        normals = {group.kind: counts for group, counts in found.items() if not group.defective}
        every_normal = KeyCounts.sum(list(normals.values()))
        for kind, counts in ((group.kind, counts) for group, counts in found.items() if group.defective):
            won[None] += _won(counts, every_normal, normal[None])
            for other in {kind, good}:
                won[kind] += _won(counts, normals.get(other, NO_KEYS), normal[other])
        # Ranges come from the lowest scores to the highest: these pixels lie below all that follow.
        normal[None] += _total(every_normal)
        for kind, counts in normals.items():
            normal[kind] += _total(counts)
        for group, counts in found.items():
            if group.defective:
                defective[group.kind] += _total(counts)
                defective[None] += _total(counts)
    against = {kind: normal[None] if kind is None else sum(normal[other] for other in {kind, good}) for kind in won}
    pairs = {kind: against[kind] * defective[kind] for kind in won}
    return {kind: won[kind] / (2 * count) if count else math.nan for kind, count in pairs.items()}


def _of_all(parts: Sequence[dict[Group, KeyCounts]]) -> dict[Group, KeyCounts]:
    groups = sorted({group for part in parts for group in part})
    return {group: KeyCounts.sum([part[group] for part in parts if group in part]) for group in groups}


def _total(counts: KeyCounts) -> int:
    return int(counts.counts.sum())


def _won(defective: KeyCounts, normal: KeyCounts, below: int) -> int:
    """Twice the comparisons that defective pixels win, and once those that are tied.

    ``below`` further normal pixels lie below all of these.
    """
    lower = np.concatenate([[0], np.cumsum(normal.counts)])
    beaten = lower[np.searchsorted(normal.keys, defective.keys, "left")]
    not_above = lower[np.searchsorted(normal.keys, defective.keys, "right")]
    return 2 * below * _total(defective) + int((defective.counts * (beaten + not_above)).sum())


def _ranges(histogram: ScoreHistogram, at_once: int) -> Iterator[tuple[int, int]]:
    """Ranges of keys, first and last, from the lowest to the highest, that hold all pixels.

    Each holds fewer than 2 * ``at_once`` pixels, or is a single bin.
    """
    bins, counts = histogram.occupied()
    large = counts > at_once
    share = (np.cumsum(counts) - counts) // at_once
    begins = np.diff(share, prepend=-1) > 0
    begins |= large
    begins[1:] |= large[:-1]
    for start, end in pairwise([*np.flatnonzero(begins), len(bins)]):
        yield int(bins[start]) * KEYS_OF_A_BIN, int(bins[end - 1]) * KEYS_OF_A_BIN + KEYS_OF_A_BIN - 1
