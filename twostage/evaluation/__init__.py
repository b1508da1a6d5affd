"""Metrics of an anomaly detector: AuROC and image figures exact, other pixel figures with bounds, in bounded memory."""

from twostage.evaluation.curves import RocCurve
from twostage.evaluation.histogram import ScoreHistogram
from twostage.evaluation.metrics import GOOD, Evaluation, Evaluator, ImageScore, Metrics
from twostage.evaluation.threshold import threshold_from_normals

__all__ = [
    "GOOD",
    "Evaluation",
    "Evaluator",
    "ImageScore",
    "Metrics",
    "RocCurve",
    "ScoreHistogram",
    "threshold_from_normals",
]
