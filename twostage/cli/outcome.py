"""Evaluate a detector on test images; write what came out as JSON and as a page."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.calibration import Calibration
from twostage.cli.environment import peak_memory, versions
from twostage.configfile import config_to_dict, config_to_toml
from twostage.data import GOOD, Sample
from twostage.detector import Detector, Prediction
from twostage.distributed import current_ranks
from twostage.evaluation import Evaluation, Metrics
from twostage.files import write_text_atomic
from twostage.history import read_history
from twostage.progress import Progress
from twostage.report import Example, ReportBuilder
from twostage.scoring import COMBINED

MOST_PICTURES = 1000
"""Test images shown in a report: each takes some 50 kB of the page, and of memory while it is made."""

OnPrediction = Callable[[Sample, Prediction, Tensor | None], None]


@dataclass(frozen=True)
class Outcome:
    """What evaluating a detector yields."""

    evaluation: Evaluation | None
    """None where there are no test images."""
    values: dict[str, Any]
    """For ``evaluation.json``: metrics, scoring, configuration, versions, timing, peak memory."""
    page: ReportBuilder
    notes: tuple[str, ...]


def evaluate(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    title: str,
    progress: Progress,
    training_seconds: float | None = None,
    notes: Sequence[str] = (),
    on_prediction: OnPrediction | None = None,
) -> Outcome:
    """Evaluate a detector on test images and draw them for the report.

    Args:
        training_seconds: how long training took, where that is known.
        notes: for the reader of the report.

    Raises:
        DataError: an image or a mask cannot be used.
    """
    low, high = map_range(detector.calibration)
    calibration = detector.calibration
    page = ReportBuilder(title, threshold=calibration.threshold, map_range=(low, high), map_name=calibration.map)
    every = -(-len(samples) // MOST_PICTURES) or 1
    shown = {id(sample) for sample in samples[::every]}

    def draw(sample: Sample, prediction: Prediction, mask: Tensor | None) -> None:
        if id(sample) in shown:
            page.add(example_of(sample, prediction, mask))
        if on_prediction is not None:
            on_prediction(sample, prediction, mask)

    started = time.perf_counter()
    evaluation = detector.evaluate(samples, on_prediction=draw, progress=progress) if samples else None
    device = next(detector.model.parameters()).device
    values = {
        "metrics": None if evaluation is None else evaluation.to_dict(),
        "scoring": {
            "map": calibration.map,
            "smoothing": calibration.smoothing,
            "threshold": calibration.threshold,
        },
        "config": config_to_dict(detector.config),
        "versions": versions(device),
        "timing": {"training_seconds": training_seconds, "evaluation_seconds": time.perf_counter() - started},
        "peak_memory": peak_memory(device),
    }
    if every > 1:
        notes = (*notes, f"Of {len(samples)} test images, {len(shown)} are shown; the figures are of all.")
    size = current_ranks().size
    if size > 1:
        notes = (*notes, f"{size} processes evaluated; the pictures are those of the first: every {size}th image.")
    return Outcome(evaluation, values, page, tuple(notes))


def write_evaluation(path: Path, outcome: Outcome) -> None:
    """Write ``evaluation.json``.

    Raises:
        OutputError: it cannot be written.
    """
    write_text_atomic(path, json.dumps(outcome.values, indent=1) + "\n")


def write_page(path: Path, outcome: Outcome, detector: Detector, history: Path) -> None:
    """Write the report. ``history`` is the run's history file; it may be missing.

    Raises:
        OutputError: the page cannot be written.
    """
    outcome.page.write(
        path,
        evaluation=outcome.values["metrics"] or {},
        history=read_history(history) if history.is_file() else [],
        config_text=config_to_toml(detector.config),
        versions=outcome.values["versions"],
        notes=outcome.notes,
    )


def example_of(sample: Sample, prediction: Prediction, mask: Tensor | None) -> Example:
    """A test image for the report, at the size it was scored at."""
    size = (prediction.score_map.shape[0], prediction.score_map.shape[1])
    if mask is not None:
        # The highest value counts, so that no small defect vanishes when a mask shrinks.
        mask = F.adaptive_max_pool2d(mask[None, None].float(), size)[0, 0] > 0
    return Example(
        name=sample.path.name,
        kind=sample.kind,
        image=prediction.image.cpu(),
        reconstruction=prediction.reconstruction.cpu(),
        residual=prediction.residual.cpu(),
        score_map=prediction.score_map.cpu(),
        mask=mask,
        score=prediction.score,
    )


def map_range(calibration: Calibration) -> tuple[float, float]:
    """Scores with no heat and with full heat: from the mean of normal pixels, with the threshold half way."""
    low, deviation = 0.0, 1.0
    if calibration.map != COMBINED:
        spread = calibration.spreads[calibration.map]
        low, deviation = spread.mean, spread.deviation
    half = calibration.threshold - low
    if not half > 1e-3 * deviation:
        half = max(3 * deviation, torch.finfo(torch.float32).eps * max(abs(low), 1.0))
    return low, low + 2 * half


def figure_text(value: float) -> str:
    """A metric in four digits; a dash where it is undefined."""
    return f"{value:.4f}" if math.isfinite(value) else "–"  # noqa: RUF001


def metrics_table(evaluation: Evaluation, threshold: float) -> Table:
    """The figures of an evaluation for the terminal."""
    table = Table(title_justify="left", box=None, pad_edge=False)
    for heading in ("", "images", "above threshold", "image AuROC", "pixel AuROC", "AUPRO"):
        table.add_column(heading, justify="right" if heading else "left")

    def add(name: str, kinds: set[str], metrics: Metrics | None) -> None:
        scores = [image.score for image in evaluation.images if image.kind in kinds]
        above = sum(score > threshold for score in scores)
        figures = () if metrics is None else (metrics.image_auroc, metrics.pixel_auroc, metrics.aupro)
        table.add_row(name, str(len(scores)), str(above), *map(figure_text, figures))

    add("all defects", set(evaluation.by_kind), evaluation.overall)
    for kind, metrics in evaluation.by_kind.items():
        add(kind, {kind}, metrics)
    add(GOOD, {GOOD}, None)
    return table
