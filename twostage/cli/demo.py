"""twostage demo"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from twostage.cli.demo_page import Strip, Surface, write_index
from twostage.cli.interruption import stopping
from twostage.cli.outcome import evaluate, write_evaluation, write_page
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.config import Config, DataConfig
from twostage.data import find_samples
from twostage.demo import SURFACES, write_demo_images
from twostage.demo.surfaces import CROP
from twostage.detector import Detector
from twostage.errors import DataError, OutputError, WeightsError
from twostage.files import write_text_atomic
from twostage.lpips import LPIPS, load_lpips_weights
from twostage.progress import Progress
from twostage.run_folder import RunFolder

STEPS = (150, 110)
"""Optimiser steps in each stage, about: what fits three surfaces into five minutes on two cores."""
OWN_IMAGE_SIZE = 256


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train both stages, evaluate and report: on three photographed surfaces, or with --data on your own images.

    A short training, to see the method at work in a few minutes; `twostage train` is the real one. Open report.html in
    the output folder. An earlier demo there is replaced.
    """

    data: Path | None = None
    """Your own images in MVTec layout (train/good, test/<kind>, ground_truth/<kind>), or a folder of such folders."""
    out: Path = Path("demo-output")
    """Folder for everything that is written."""
    lpips_weights: Path | None = None
    """File or folder with the LPIPS weights. Without the option TWOSTAGE_LPIPS_WEIGHTS is looked at, then the trunk is
    downloaded; where that fails, the demo goes on without LPIPS."""

    def execute(self) -> int:
        """Run the demo.

        Raises:
            DataError: the images cannot be used.
            OutputError: the output folder cannot be written, or holds something else.
            Stopped: by Ctrl-C.
        """
        self._claim_folder()
        surfaces: list[Surface] = []
        notes = [_SHORT]
        with stopping(lambda: "The demo starts anew when it is called again."), TerminalProgress() as progress:
            roots = self._roots()
            for root in roots.values():
                find_samples(DataConfig(root=root))
            self._forget_earlier_runs(list(roots))
            lpips = self._lpips(notes, progress)
            for name, root in roots.items():
                progress.note(f"{name} ({len(surfaces) + 1} of {len(roots)})")
                surfaces.append(self._run(name, root, lpips, notes, progress))
            report = self._write_report(surfaces, notes)
        print_result(_table(surfaces))
        print_result(f"report: {report}")
        return 0

    def _claim_folder(self) -> None:
        marker = self.out / _MARKER
        try:
            if self.out.exists() and any(self.out.iterdir()) and not marker.is_file():
                raise OutputError(f"{self.out} holds files and no demo; accepted: a new or empty folder, or a demo's")
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.out} cannot be written: {error}") from error
        if not marker.is_file():
            write_text_atomic(marker, "[]\n")

    def _forget_earlier_runs(self, names: Sequence[str]) -> None:
        marker = self.out / _MARKER
        (self.out / "report.html").unlink(missing_ok=True)
        for name in json.loads(marker.read_text(encoding="utf-8")):
            if RunFolder(self.out / "runs" / name).config.is_file():
                shutil.rmtree(self.out / "runs" / name)
        write_text_atomic(marker, json.dumps(list(names)) + "\n")

    def _roots(self) -> dict[str, Path]:
        """The data sets by name."""
        if self.data is None:
            images = write_demo_images(self.out.absolute() / "images")
            return {name: images / name for name in SURFACES}
        data = self.data.absolute()
        if not data.is_dir():
            raise DataError(f"{self.data} is no folder; accepted: a folder of images in MVTec layout")
        several = {} if (data / "train").is_dir() else _data_sets_in(data)
        return several or {data.name: data}

    def _lpips(self, notes: list[str], progress: Progress) -> LPIPS | None:
        try:
            return LPIPS(load_lpips_weights(self.lpips_weights))
        except WeightsError as error:
            if self.lpips_weights is not None:
                raise
            first_sentence = str(error).partition("Three ways out")[0].strip().rstrip(".;:")
            notes.append(f"Without LPIPS ({first_sentence}): the second stage trains with AW-SSIM alone.")
            progress.note(notes[-1])
            return None

    def _run(self, name: str, root: Path, lpips: LPIPS | None, notes: Sequence[str], progress: Progress) -> Surface:
        started = time.perf_counter()
        run = RunFolder(self.out / "runs" / name)
        size = CROP if self.data is None else OWN_IMAGE_SIZE
        config = demo_config(root, image_size=size, with_lpips=lpips is not None)
        detector = Detector.fit(config, run=run.path, overwrite=True, lpips=lpips, progress=progress)
        trained = time.perf_counter() - started
        detector.save(run.detector)
        strip = Strip(detector.calibration)
        outcome = evaluate(
            detector,
            find_samples(config.data).test,
            title=f"twostage demo: {name}",
            progress=progress,
            training_seconds=trained,
            notes=notes,
            on_prediction=strip.add,
        )
        write_evaluation(run.evaluation, outcome)
        write_page(run.report, outcome, detector, run.history)
        overall = None if outcome.evaluation is None else outcome.evaluation.overall
        return Surface(name, run.report, overall, time.perf_counter() - started, strip)

    def _write_report(self, surfaces: Sequence[Surface], notes: Sequence[str]) -> Path:
        report = self.out / "report.html"
        if len(surfaces) == 1:
            write_text_atomic(report, surfaces[0].report.read_text(encoding="utf-8"))
        else:
            write_index(report, surfaces, notes)
        return report


_MARKER = "demo.json"
_SHORT = "A demonstration with a short training; `twostage train` trains in earnest."


def demo_config(root: Path, *, image_size: int, with_lpips: bool) -> Config:
    """Settings for a short training on a data set.

    Raises:
        DataError: the data set cannot be read.
    """
    config = Config(data=DataConfig(root=root, image_size=image_size))
    tiles = -(-image_size // config.model.patch_size)
    steps_in_epoch = max(1, len(find_samples(config.data).train) * tiles**2 // config.batch_size)
    first, second = (
        replace(stage, epochs=max(1, round(steps / steps_in_epoch)))
        for stage, steps in zip((config.first_stage, config.second_stage), STEPS, strict=True)
    )
    config = replace(config, first_stage=first, second_stage=second)
    if with_lpips:
        return config
    second = replace(second, loss=replace(second.loss, name="aw-ssim"))
    return replace(config, second_stage=second, scoring=replace(config.scoring, lpips=False, map="auto"))


def _data_sets_in(folder: Path) -> dict[str, Path]:
    return {child.name: child for child in sorted(folder.iterdir()) if (child / "train" / "good").is_dir()}


def _table(surfaces: Sequence[Surface]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "pixel AuROC", "image AuROC", "AUPRO", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    for surface in surfaces:
        table.add_row(surface.name, *surface.figures, f"{surface.seconds:.0f}")
    return table
