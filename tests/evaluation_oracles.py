"""Pixel and image figures from all scores at once: scikit-learn, and AUPRO straight from its definition."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from twostage.evaluation import Evaluator

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass
class TestImage:
    """One image as ``Evaluator.add`` takes it."""

    __test__ = False
    scores: Map
    mask: Mask
    kind: str
    score: float
    name: str


def evaluator_of(images: list[TestImage]) -> Evaluator:
    evaluator = Evaluator()
    for image in images:
        evaluator.add(image.scores, image.mask, image.score, image.kind, name=image.name)
    return evaluator


def f1_max(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


def connected_regions(mask: Mask) -> list[Mask]:
    """8-connected regions, grown pixel by pixel."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        region, edge = np.zeros_like(mask), [left.pop()]
        while edge:
            row, column = edge.pop()
            region[row, column] = True
            neighbours = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= neighbours
            edge += neighbours
        regions.append(region)
    return regions


def aupro(maps: list[Map], masks: list[Mask], limit: float = 0.3) -> float:
    """The curve point by point: every distinct score is a threshold, every region's overlap is counted anew."""
    regions: list[Map] = []
    for scores, mask in zip(maps, masks, strict=True):
        regions += [np.sort(scores[region]) for region in connected_regions(mask)]
    normal = np.sort(np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)]))
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1]:
        rate = 1 - np.searchsorted(normal, threshold) / len(normal)
        overlap = np.mean([1 - np.searchsorted(region, threshold) / len(region) for region in regions])
        points.append((float(rate), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            y_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + y_limit) / 2
    return area / limit


def pixel_figures(images: list[TestImage]) -> dict[str, float]:
    """Pixel figures of the unbinned scores, by the names of ``Metrics``."""
    scores = np.concatenate([image.scores.ravel() for image in images]).astype(np.float64)
    labels = np.concatenate([image.mask.ravel() for image in images])
    return {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
        "f1_max": f1_max(labels, scores),
        "aupro": aupro([image.scores for image in images], [image.mask for image in images]),
    }
