"""twostage train"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from twostage.cli.interruption import command_line, stopping
from twostage.cli.outcome import evaluate, metrics_table, write_evaluation, write_page
from twostage.cli.settings import Configured, Preset
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.config import Config
from twostage.configfile import load_config
from twostage.data import find_samples
from twostage.detector import Detector
from twostage.errors import ConfigError
from twostage.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Train(Configured):
    """Train a detector on images of good parts, then evaluate it where there are test images.

    The folder RUN receives the settings, the checkpoints, the detector, evaluation.json and report.html.
    Ctrl-C saves; --resume goes on where it stopped.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of the run: a new one, or with --resume or --overwrite that of an earlier run."""
    preset: tyro.conf.UseAppendAction[tuple[Preset, ...]] = ()
    """The weights of AW-SSIM for a category of the paper, or a method of its tables. Changes the TOML file's settings;
    flags change both."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run, with its own settings where no --config is given."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier run."""

    def presets(self) -> tuple[str, ...]:
        return self.preset

    def starting_config(self) -> Config:
        own = RunFolder(self.run).config
        return load_config(own) if self.resume and self.config is None and own.is_file() else super().starting_config()

    def execute(self) -> int:
        """Train and evaluate.

        Raises:
            TwostageError: as :meth:`twostage.Detector.fit`.
            Stopped: by Ctrl-C.
        """
        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite are given; accepted: one of them")
        run = RunFolder(self.run)
        with stopping(self._how_to_go_on), TerminalProgress() as progress:
            started = time.perf_counter()
            detector = Detector.fit(
                self.settings, run=self.run, resume=self.resume, overwrite=self.overwrite, progress=progress
            )
            detector.save(run.detector)
            outcome = evaluate(
                detector,
                find_samples(self.settings.data).test,
                title=f"twostage: {self.run.absolute().name}",
                progress=progress,
                training_seconds=time.perf_counter() - started,
            )
            write_evaluation(run.evaluation, outcome)
            write_page(run.report, outcome, detector, run.history)
        if outcome.evaluation is not None:
            print_result(metrics_table(outcome.evaluation, detector.calibration.threshold))
        print_result(f"detector: {run.detector}\nreport: {run.report}")
        return 0

    def _how_to_go_on(self) -> str:
        if not RunFolder(self.run).config.is_file():
            return "Nothing was written."
        return f"Continue with:\n  {command_line('train', self.run, '--resume')}"
