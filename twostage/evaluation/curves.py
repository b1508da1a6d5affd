"""Areas and maxima of threshold curves, from counts per threshold, each with a bound on what the bins can hide.

Every function takes counts per threshold from the highest score to the lowest. Where each threshold is one distinct
score (images), the value is exact. Where a threshold is a bin (pixels), the order inside the bin is unknown and scores
in it count as ties; ``Bounded.bound`` then limits the distance to the value of the unbinned scores, whatever their
order, up to the rounding of float64. It is a guarantee and not an estimate: true ties inside a bin count towards it,
though they cause no error.

All are nan where there is nothing normal or nothing defective.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twostage.evaluation.regions import REGION_WEIGHT

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Bounded(NamedTuple):
    """A metric and the largest distance to its value without bins."""

    value: float
    bound: float


UNDEFINED = Bounded(math.nan, math.nan)


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve from (0, 0) to (1, 1); empty where undefined."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


def count_scores(normal: FloatArray, defective: FloatArray) -> tuple[IntArray, IntArray]:
    """Counts of ``normal`` [N] and ``defective`` [P] scores at each distinct score, from the highest to the lowest."""
    values, index = np.unique(np.concatenate([normal, defective]), return_inverse=True)
    of_normal = np.bincount(index[: len(normal)], minlength=len(values))
    of_defective = np.bincount(index[len(normal) :], minlength=len(values))
    return of_normal[::-1], of_defective[::-1]


def auroc(normal: IntArray, defective: IntArray) -> Bounded:
    """Area under the ROC curve: the chance that a defective item scores above a normal one, ties counting half.

    In a bin with n normal and p defective pixels the n p comparisons are worth between 0 and n p, and are counted as
    half of it: the bound is sum(n p) / 2, divided by all N P comparisons.
    """
    pairs = float(normal.sum()) * float(defective.sum())
    if pairs == 0:
        return UNDEFINED
    won = normal * (np.cumsum(defective) - defective / 2)
    tied = normal.astype(np.float64) * defective
    return Bounded(min(float(won.sum()) / pairs, 1.0), float(tied.sum()) / 2 / pairs)


def average_precision(normal: IntArray, defective: IntArray) -> Bounded:
    """Sum of precision times the growth of recall over all thresholds (scikit-learn's definition, no interpolation).

    Let TP and FP be the counts above a bin of n normal and p defective pixels. Whatever the order inside, the i-th
    defective pixel in it is found with a precision of at least (TP + i) / (TP + i + FP + n) and at most
    (TP + p) / (TP + p + FP). The bound is the larger of the two sums' distances to the value.
    """
    positives = float(defective.sum())
    if positives == 0 or not normal.any():
        return UNDEFINED
    true = np.cumsum(defective).astype(np.float64)
    false = np.cumsum(normal).astype(np.float64)
    value = defective * true / (true + false)
    highest = defective * true / np.maximum(true + false - normal, 1.0)
    # sum over i of (TP + i) / (TP + i + c) is at least the integral of t / (t + c) from TP to TP + p.
    before = true - defective
    lowest = defective - false * np.log1p(defective / np.maximum(before + false, 1.0))
    bound = max(float((highest - value).sum()), float((value - lowest).sum())) / positives
    return Bounded(min(float(value.sum()) / positives, 1.0), bound)


def f1_max(normal: IntArray, defective: IntArray) -> Bounded:
    """Largest harmonic mean of precision and recall over all thresholds.

    The edges of bins are thresholds too, so the value is never above that of the unbinned scores. Inside a bin, F1 is
    at most that of all its defective and none of its normal pixels: the bound is the largest of these minus the value.
    """
    positives = float(defective.sum())
    if positives == 0 or not normal.any():
        return UNDEFINED
    true = np.cumsum(defective).astype(np.float64)
    false = np.cumsum(normal).astype(np.float64)
    value = float((2 * true / (true + false + positives)).max())
    highest = float((2 * true / (true + false - normal + positives)).max())
    return Bounded(value, highest - value)


def aupro(normal: IntArray, region_weight: IntArray, regions: int, *, limit: float = 0.3) -> Bounded:
    """Area under the per-region overlap as a function of the false positive rate, up to ``limit``, divided by it.

    The overlap is the mean, over connected defective regions, of the share of their pixels at or above the threshold;
    the false positive rate is over all normal pixels, those in images without a defect included. Neighbouring
    thresholds are joined by straight lines, and the last line is cut at ``limit``. In [0, 1].

    Inside a bin the curve is known to rise within a box, and is taken as its diagonal: the bound sums the areas between
    the diagonals and the upper left corners (as far as ``limit``), and adds the 2**-32 of the fixed-point weights.
    Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, Sec. 4.3, and its evaluation script.
    """
    negatives = int(normal.sum())
    if negatives == 0 or regions == 0:
        return UNDEFINED
    rate = np.concatenate([[0], np.cumsum(normal)]) / negatives
    overlap = np.concatenate([[0], np.cumsum(region_weight)]) / (regions * REGION_WEIGHT)
    step, rise = np.diff(rate), np.diff(overlap)
    width = np.clip(limit - rate[:-1], 0.0, step)
    share = np.divide(width, step, out=np.zeros_like(step), where=step > 0)
    area = float((width * (overlap[:-1] + rise * share / 2)).sum()) / limit
    hidden = float((width * rise * (1 - share / 2)).sum()) / limit
    return Bounded(min(area, 1.0), hidden + 1 / REGION_WEIGHT)


def roc_curve(normal: IntArray, defective: IntArray, *, points: int = 500) -> RocCurve:
    """The ROC curve, thinned to at most ``points`` points spread evenly along its length; both ends are kept."""
    negatives, positives = int(normal.sum()), int(defective.sum())
    if negatives == 0 or positives == 0:
        return RocCurve((), ())
    false = np.concatenate([[0], np.cumsum(normal)]) / negatives
    true = np.concatenate([[0], np.cumsum(defective)]) / positives
    if len(false) > points:
        kept = np.searchsorted(false + true, np.linspace(0.0, 2.0, points))
        kept[-1] = len(false) - 1
        kept = np.unique(kept)
        false, true = false[kept], true[kept]
    return RocCurve(tuple(false.tolist()), tuple(true.tolist()))
