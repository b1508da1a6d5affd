"""twostage evaluate, twostage report"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from twostage.cli.interruption import stopping
from twostage.cli.outcome import Outcome, evaluate, metrics_table, write_evaluation, write_page
from twostage.cli.terminal import TerminalProgress, print_result, progress_of
from twostage.data import ImageSet, find_samples
from twostage.detector import Detector
from twostage.devices import choose_device
from twostage.distributed import joined
from twostage.errors import ConfigError, DataError, OutputError
from twostage.run_folder import RunFolder


@dataclass(frozen=True)
class TestData:
    """Test images other than the run's own."""

    root: Path | None = None
    """Folder in MVTec layout."""
    manifest: Path | None = None
    """CSV manifest."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a run on its test images, or on those of another data set.

    Writes evaluation.json and report.html: into the run's folder, or for another data set into evaluations/<its name>
    in there.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of the run."""
    data: TestData = field(default_factory=TestData)
    device: str = "auto"
    """What computes: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    lpips_weights: Path | None = None
    """File or folder with the LPIPS weights, if not where they were at training."""

    def execute(self) -> int:
        """Evaluate.

        Raises:
            TwostageError: the run, the data or the weights cannot be used.
            Stopped: by Ctrl-C.
        """
        run = RunFolder(self.run)
        with (
            joined(choose_device(self.device)) as ranks,
            stopping(lambda: "Nothing was changed."),
            progress_of(ranks) as progress,
        ):
            detector = load_run(run, lpips_weights=self.lpips_weights, device=self.device)
            images = self._images(detector)
            if not images.test:
                raise DataError(f"{images.name} holds no test images; accepted: a data set with test/<kind>/<images>")
            folder = run.path if self._is_own else run.evaluations / images.name
            outcome = evaluate(
                detector,
                images.test,
                title=f"twostage: {run.path.absolute().name}" + ("" if self._is_own else f" on {images.name}"),
                progress=progress,
                training_seconds=_training_seconds(run),
            )
            if not ranks.first:
                return 0
            write_outcome(folder, outcome, detector, run)
        assert outcome.evaluation is not None
        print_result(metrics_table(outcome.evaluation, detector.calibration.threshold))
        print_result(f"report: {RunFolder(folder).report}")
        return 0

    @property
    def _is_own(self) -> bool:
        return self.data == TestData()

    def _images(self, detector: Detector) -> ImageSet:
        data = detector.config.data
        return find_samples(data if self._is_own else replace(data, root=self.data.root, manifest=self.data.manifest))


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write a run's report.html again.

    The pictures are not kept, so the test images are scored once more.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of the run."""
    out: Path | None = None
    """The page; report.html in the run's folder if not given."""
    device: str = "auto"
    """What computes: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    lpips_weights: Path | None = None
    """File or folder with the LPIPS weights, if not where they were at training."""

    def execute(self) -> int:
        """Write the page.

        Raises:
            TwostageError: the run, the data or the weights cannot be used.
            Stopped: by Ctrl-C.
        """
        run = RunFolder(self.run)
        path = self.out or run.report
        with stopping(lambda: "The page was not changed."), TerminalProgress() as progress:
            detector = load_run(run, lpips_weights=self.lpips_weights, device=self.device)
            samples = find_samples(detector.config.data).test
            outcome = evaluate(detector, samples, title=f"twostage: {run.path.absolute().name}", progress=progress)
            write_page(path, outcome, detector, run.history)
        print_result(f"report: {path}")
        return 0


def load_run(run: RunFolder, *, lpips_weights: Path | None, device: str) -> Detector:
    """The detector of a finished run.

    Raises:
        OutputError: the folder holds no run, or one that was not finished.
        CheckpointError: the detector is damaged, or of another version.
        WeightsError: it needs LPIPS weights and they are not found.
    """
    run.require_run()
    if not run.detector.is_dir():
        raise OutputError(f"{run.path} holds a run that was not finished; accepted: a finished run (train --resume)")
    return Detector.load(run.detector, lpips_weights=lpips_weights, device=device)


def write_outcome(folder: Path, outcome: Outcome, detector: Detector, run: RunFolder) -> None:
    """Write evaluation.json and report.html into a folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    target = RunFolder(folder)
    write_evaluation(target.evaluation, outcome)
    write_page(target.report, outcome, detector, run.history)


def _training_seconds(run: RunFolder) -> float | None:
    """As the run's last evaluation has it."""
    if not run.evaluation.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(run.evaluation.read_text(encoding="utf-8"))
        seconds: float | None = values["timing"]["training_seconds"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run.evaluation} is no evaluation of this program; delete it: {error}") from error
    return seconds
