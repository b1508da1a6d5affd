"""Metrics of a detector over a test set, overall and for each kind of defect, in one pass and mergeable."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostage.errors import DataError
from twostage.evaluation import curves
from twostage.evaluation.curves import RocCurve
from twostage.evaluation.histogram import ScoreHistogram, score_keys
from twostage.evaluation.ranking import Gather, pixel_aurocs
from twostage.evaluation.scores import Group, PixelScores

GOOD = "good"
"""The kind of images without a defect."""

Array = Tensor | npt.NDArray[Any]


@dataclass(frozen=True)
class Metrics:
    """Figures in [0, 1], higher is better; nan where there is nothing normal or nothing defective to tell apart.

    Image figures and the AuROC of pixels are exact. The other pixel figures come from bins of 0.012 % relative width,
    and the ``_bound`` beside each is a guaranteed limit on its distance to the figure of the unbinned scores (see
    ``curves``).
    """

    pixel_auroc: float
    image_auroc: float
    average_precision: float
    """Of pixels."""
    aupro: float
    """Per-region overlap up to a false positive rate of 0.3, divided by 0.3."""
    f1_max: float
    """Of pixels, at the best threshold for the test set: an upper limit, not what a fixed threshold reaches."""
    image_average_precision: float
    image_f1_max: float
    """Of images, at the best threshold for the test set."""
    average_precision_bound: float
    aupro_bound: float
    f1_max_bound: float


@dataclass(frozen=True)
class ImageScore:
    """The score of one test image."""

    name: str
    kind: str
    score: float


@dataclass(frozen=True)
class Evaluation:
    """What ``Evaluator.result`` found."""

    overall: Metrics
    by_kind: dict[str, Metrics]
    """Each kind of defect against all good images; sorted by kind."""
    pixel_roc: RocCurve
    """Overall, at most 500 points."""
    image_roc: RocCurve
    """Overall, at most 500 points."""
    images: tuple[ImageScore, ...]
    """Sorted by kind, name and score."""
    images_without_mask: int
    """Defective images that came without a mask and so are in the image figures only."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers for JSON; None where a metric is undefined."""
        return {
            "overall": _finite(self.overall),
            "by_kind": {kind: _finite(metrics) for kind, metrics in self.by_kind.items()},
            "pixel_roc": {name: list(values) for name, values in asdict(self.pixel_roc).items()},
            "image_roc": {name: list(values) for name, values in asdict(self.image_roc).items()},
            "images": [asdict(image) for image in self.images],
            "images_without_mask": self.images_without_mask,
        }


class Evaluator:
    """Collects score maps of test images one by one and computes their metrics.

    Memory: one ``ScoreHistogram`` for each kind, the name, kind and score of each image, and up to 2**24 pixel scores;
    more of these go to a temporary file (see ``scores.PixelScores``), at 4 bytes each. A pickled evaluator holds them
    all.

    Evaluators of parts of a test set can be merged; the result does not depend, in any bit, on the order in which named
    images came or on how they were divided.
    """

    def __init__(self) -> None:
        self._pixels: dict[str, ScoreHistogram] = {}
        self._scores = PixelScores()
        self._images: list[ImageScore] = []
        self._images_without_mask = 0

    def add(
        self, score_map: Array, mask: Array | None, image_score: float | Tensor, kind: str, *, name: str | None = None
    ) -> None:
        """Add one test image.

        Args:
            score_map: [H, W], any floating-point type, any range, higher means more anomalous. Read as float32.
            mask: [H, W] bool, True where defective. None means no defect for a good image; a defective image without a
                mask counts in the image figures only. Where the mask of a defective image is all False, all its pixels
                count as normal.
            image_score: any finite number; kept in float64.
            kind: "good", or the kind of defect.
            name: for messages and the list of image scores; by default the kind and a running number.

        Raises:
            DataError: the map is not [H, W] or is empty, the map or the image score is not finite (in float32 for the
                map), the mask is not bool or of another shape, or a good image has defective pixels. The message names
                the image and lists all of these; nothing was added.
            OutputError: the temporary file cannot be written.
        """
        name = f"{kind} image {len(self._images)}" if name is None else name
        scores = _as_float32(score_map)
        defective = None if mask is None else _as_numpy(mask)
        score = float(image_score.item() if isinstance(image_score, Tensor) else image_score)
        problems = _problems(scores, defective, score, kind)
        if problems:
            raise DataError(f"{name}: {'; '.join(problems)}")
        self._images.append(ImageScore(name, kind, score))
        if kind != GOOD and defective is None:
            self._images_without_mask += 1
            return
        keys = score_keys(scores)
        if defective is None or not defective.any():
            self._scores.add(keys, Group(kind, False))
        else:
            self._scores.add(keys[~defective], Group(kind, False))
            self._scores.add(keys[defective], Group(kind, True))
        self._pixels.setdefault(kind, ScoreHistogram()).add(keys, defective)

    def merge(self, other: "Evaluator") -> None:
        """Add what ``other`` has collected: the same as if its images had been added here."""
        self._merge_counts(other)
        self._scores.merge(other._scores)

    def result(self, gather: Gather | None = None) -> Evaluation:
        """The metrics of all images so far; more can be added afterwards.

        Args:
            gather: for processes with an evaluator each, which call this together: returns what every one of them
                passed (``twostage.distributed.from_all`` does). Then the metrics are those of all their images.
        """
        gather = gather or (lambda value: [value])
        everything = Evaluator()
        for part in gather(self._without_scores()):
            everything._merge_counts(part)
        return everything._result(lambda pixels: pixel_aurocs(pixels, self._scores.sorted(), GOOD, gather))

    def _merge_counts(self, other: "Evaluator") -> None:
        for kind, histogram in other._pixels.items():
            self._pixels.setdefault(kind, ScoreHistogram()).merge(histogram)
        self._images.extend(other._images)
        self._images_without_mask += other._images_without_mask

    def _without_scores(self) -> "Evaluator":
        counts = Evaluator()
        counts._merge_counts(self)
        return counts

    def _result(self, find_aurocs: Callable[[ScoreHistogram], Mapping[str | None, float]]) -> Evaluation:
        good = self._pixels.get(GOOD, ScoreHistogram())
        everything = ScoreHistogram()
        for histogram in self._pixels.values():
            everything.merge(histogram)
        aurocs = find_aurocs(everything)
        kinds = sorted({image.kind for image in self._images} - {GOOD})
        by_kind = {
            kind: _metrics(
                good + self._pixels.get(kind, ScoreHistogram()),
                aurocs.get(kind, math.nan),
                self._image_counts({kind}),
            )
            for kind in kinds
        }
        image_counts = self._image_counts(set(kinds))
        pixel_counts = everything.counts()
        return Evaluation(
            overall=_metrics(everything, aurocs.get(None, math.nan), image_counts),
            by_kind=by_kind,
            pixel_roc=curves.roc_curve(pixel_counts.normal, pixel_counts.defective),
            image_roc=curves.roc_curve(*image_counts),
            images=tuple(sorted(self._images, key=lambda image: (image.kind, image.name, image.score))),
            images_without_mask=self._images_without_mask,
        )

    def _image_counts(self, kinds: set[str]) -> tuple[curves.IntArray, curves.IntArray]:
        good = np.array([image.score for image in self._images if image.kind == GOOD], dtype=np.float64)
        defective = np.array([image.score for image in self._images if image.kind in kinds], dtype=np.float64)
        return curves.count_scores(good, defective)


def _metrics(
    pixels: ScoreHistogram, pixel_auroc: float, image_counts: tuple[curves.IntArray, curves.IntArray]
) -> Metrics:
    counts = pixels.counts()
    average_precision = curves.average_precision(counts.normal, counts.defective)
    aupro = curves.aupro(counts.normal, counts.region_weight, counts.regions)
    f1_max = curves.f1_max(counts.normal, counts.defective)
    return Metrics(
        pixel_auroc=pixel_auroc,
        image_auroc=curves.auroc(*image_counts).value,
        average_precision=average_precision.value,
        aupro=aupro.value,
        f1_max=f1_max.value,
        image_average_precision=curves.average_precision(*image_counts).value,
        image_f1_max=curves.f1_max(*image_counts).value,
        average_precision_bound=average_precision.bound,
        aupro_bound=aupro.bound,
        f1_max_bound=f1_max.bound,
    )


def _problems(
    scores: npt.NDArray[np.float32], mask: npt.NDArray[Any] | None, image_score: float, kind: str
) -> list[str]:
    found: list[str] = []
    if scores.ndim != 2 or scores.size == 0 or scores.size >= 2**31:
        found.append(f"the score map is {scores.shape}; accepted: [H, W] with 1 to 2**31 - 1 pixels")
    elif not np.isfinite(scores).all():
        rows, columns = np.nonzero(~np.isfinite(scores))
        found.append(
            f"{len(rows)} of {scores.size} scores are not finite in float32, "
            f"the first at row {rows[0]}, column {columns[0]}"
        )
    if not math.isfinite(image_score):
        found.append(f"the image score is {image_score}; accepted: a finite number")
    if mask is None:
        return found
    if mask.dtype != np.bool_:
        found.append(f"the mask is of type {mask.dtype}; accepted: bool")
    elif mask.shape != scores.shape:
        found.append(f"the mask is {mask.shape} but the score map is {scores.shape}; accepted: the same shape")
    elif kind == GOOD and mask.any():
        found.append(f"the kind is {GOOD!r} but the mask marks {int(mask.sum())} defective pixels; accepted: none")
    return found


def _as_numpy(values: Array) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    return np.asarray(values)


def _as_float32(values: Array) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # What does not fit becomes infinite and is refused by name.
        return _as_numpy(values).astype(np.float32, copy=False)


def _finite(metrics: Metrics) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(metrics).items()}
