"""twostage train"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from twostage.cli.interruption import command_line, stopping
from twostage.cli.outcome import evaluate, metrics_table, write_evaluation, write_page
from twostage.cli.settings import Configured, Preset
from twostage.cli.terminal import print_result, progress_of
from twostage.config import Config
from twostage.configfile import load_config
from twostage.data import find_samples
from twostage.detector import Detector
from twostage.devices import choose_device
from twostage.distributed import from_first, joined
from twostage.errors import ConfigError
from twostage.fitting import Resume, Watch
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
    auto_resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run where RUN holds one, else start it: for launchers that give the same command again after a
    failure. torchrun's own restarts do so without the flag."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier run."""
    tensorboard: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write curves and reconstructions for TensorBoard into RUN/tensorboard."""
    profile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Profile a few steps of every stage: a trace, and a text that says where the time goes, in RUN/profile."""

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
        if sum((self.resume, self.auto_resume, self.overwrite)) > 1:
            raise ConfigError("--resume, --auto-resume, --overwrite: several are given; accepted: one of them")
        run = RunFolder(self.run)
        with (
            joined(choose_device(self.settings.device)) as ranks,
            stopping(self._how_to_go_on),
            progress_of(ranks) as progress,
        ):
            started = time.perf_counter()
            restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
            # What --overwrite is to replace may still be there: the process may have died before it came so far.
            overwrite = self.overwrite and not from_first(restarted and run.opened_by_this_launch)
            resume: Resume = "auto" if self.auto_resume or (restarted and not overwrite) else self.resume
            watch = Watch(tensorboard=self.tensorboard, profile=self.profile)
            detector = Detector.fit(
                self.settings, run=self.run, resume=resume, overwrite=overwrite, progress=progress, watch=watch
            )
            if ranks.first:
                detector.save(run.detector)
            outcome = evaluate(
                detector,
                find_samples(self.settings.data).test,
                title=f"twostage: {self.run.absolute().name}",
                progress=progress,
                training_seconds=time.perf_counter() - started,
            )
            if not ranks.first:
                return 0
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
