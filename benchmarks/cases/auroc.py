"""The area under the ROC curve of all pixels of a test set."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from benchmarks.case import Absent, Case, Contender, Least, Role
from benchmarks.peers import Peer
from twostage.evaluation import Evaluator, ScoreHistogram
from twostage.evaluation.curves import Bounded, auroc
from twostage.evaluation.histogram import score_keys

IMAGES, SIDE = 16, 512
_DEFECTIVE_ROWS = 32

Scores = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


class Labelled(NamedTuple):
    scores: Scores  # [N, H, W]
    masks: Masks


def _inputs(seed: int) -> Labelled:
    """Normal scores, half of the images with a band whose scores are two standard deviations higher."""
    generator = np.random.default_rng(seed)
    scores = generator.standard_normal((IMAGES, SIDE, SIDE), dtype=np.float32)
    masks = np.zeros(scores.shape, dtype=np.bool_)
    masks[::2, :_DEFECTIVE_ROWS] = True
    scores[masks] += 2
    return Labelled(np.exp(scores), masks)


def _histogram(pixels: Labelled) -> Bounded:
    histogram = ScoreHistogram()
    for scores, mask in zip(*pixels, strict=True):
        histogram.add(score_keys(scores), mask)
    counts = histogram.counts()
    return auroc(counts.normal, counts.defective)


def _all_metrics(pixels: Labelled) -> float:
    evaluator = Evaluator()
    for scores, mask in zip(*pixels, strict=True):
        evaluator.add(scores, mask, float(scores.max()), "defect" if mask.any() else "good")
    return evaluator.result().overall.pixel_auroc


def _truth(pixels: Labelled) -> float:
    """By ranks, in float64: the share of pairs in which the defective pixel scores higher."""
    defective = pixels.masks.ravel()
    ranks = rankdata(pixels.scores.ravel())
    positives, negatives = int(defective.sum()), int((~defective).sum())
    return float((ranks[defective].sum() - positives * (positives + 1) / 2) / positives / negatives)


def _judge(result: Bounded | float, truth: float, role: Role) -> float:
    """Bins state their own bound; who has none must be exact to float32."""
    value, bound = result if isinstance(result, Bounded) else (result, float(np.finfo(np.float32).eps))
    return abs(value - truth) / bound


def _scikit_learn() -> Callable[..., float]:
    from sklearn.metrics import roc_auc_score

    return lambda pixels: float(roc_auc_score(pixels.masks.ravel(), pixels.scores.ravel()))


def _torchmetrics() -> Callable[..., float]:
    from torchmetrics.functional.classification import binary_auroc

    def score(pixels: Labelled) -> float:
        # It takes scores outside [0, 1] for logits and squashes them.
        scores = torch.from_numpy(pixels.scores / pixels.scores.max()).flatten()
        return float(binary_auroc(scores, torch.from_numpy(pixels.masks).flatten().long()))

    return score


_PEERS = (Peer("scikit-learn", _scikit_learn), Peer("torchmetrics", _torchmetrics))


def _contenders() -> Sequence[Contender | Absent]:
    def adapt(function: Callable[..., Any]) -> Callable[[Any], Any]:
        return function

    return [
        Contender("twostage, bins", "ours", _histogram),
        Contender("twostage, all metrics", "ours", _all_metrics),
        *(peer.load("cpu", adapt) for peer in _PEERS),
    ]


def cases(device: str) -> list[Case]:
    if device != "cpu":
        return []
    return [
        Case(
            op="AuROC",
            task="of pixels",
            shape=(IMAGES, SIDE, SIDE),
            device="cpu",
            inputs=_inputs,
            contenders=_contenders,
            truth=_truth,
            judge=_judge,
            least=lambda _: Least(5 * IMAGES * SIDE * SIDE, 0),
            rotates=False,
        )
    ]
