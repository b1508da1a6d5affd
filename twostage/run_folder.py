"""The folder of a training run: what lies where, and that nothing in it is lost by accident."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from twostage.config import Config
from twostage.configfile import config_to_toml
from twostage.distributed import launch
from twostage.errors import OutputError
from twostage.files import write_text_atomic
from twostage.locking import locked


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. ``config.toml`` marks the folder as one."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def detector(self) -> Path:
        return self.path / "detector"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def evaluations(self) -> Path:
        """Of other data sets, a folder for each."""
        return self.path / "evaluations"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    def require_usable(self, *, overwrite: bool = False) -> None:
        """Check what :meth:`open_new` needs, and change nothing.

        Raises:
            OutputError: as :meth:`open_new`.
        """
        try:
            if self.config.exists() and not overwrite:
                raise OutputError(
                    f"{self.path} already holds a run; accepted: another folder, resuming it (--resume), or replacing "
                    "it (--overwrite)"
                )
            if not self.config.exists() and self.path.exists() and self._holds_files():
                raise OutputError(f"{self.path} holds files and no run; accepted: a new or empty folder, or a run's")
            existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
            if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
                raise OutputError(f"{self.path} cannot be used for a run: {existing} is no folder that can be written")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be used for a run: {error}") from error

    def open_new(self, config: Config, *, overwrite: bool = False) -> None:
        """Make the folder for a new run.

        Args:
            overwrite: remove what an earlier run left in it; files that no run writes stay.

        Raises:
            OutputError: it already holds a run and ``overwrite`` is not set, holds other files and no run, or cannot
                be written.
        """
        self.require_usable(overwrite=overwrite)
        try:
            self._remove_earlier_run()
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be used for a run: {error}") from error
        write_text_atomic(self._launch, launch())
        self.record(config)

    @property
    def opened_by_this_launch(self) -> bool:
        """Whether the run was begun by the start of `torchrun` that this process belongs to."""
        return bool(launch()) and self._launch.is_file() and self._launch.read_text(encoding="utf-8") == launch()

    @property
    def _launch(self) -> Path:
        return self.path / ".launch"

    def record(self, config: Config) -> None:
        """Write the configuration that the run has now.

        Raises:
            OutputError: the folder cannot be written.
        """
        write_text_atomic(self.config, config_to_toml(config))

    def require_run(self) -> None:
        """Raises:
        OutputError: the folder holds no run.
        """
        if not self.config.is_file():
            raise OutputError(f"{self.path} holds no run (no config.toml); accepted: the folder of a training run")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder if it is missing, and hold it: of two trainings at once each would undo the other's.

        Raises:
            OutputError: another process trains this run, or the folder cannot be written.
        """

        def refuse() -> NoReturn:
            raise OutputError(f"{self.path}: another process trains this run; accepted: one at a time")

        with ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self.path, refuse))
            except OSError as error:
                raise OutputError(f"{self.path} cannot be used for a run: {error}") from error
            yield

    def _holds_files(self) -> bool:
        return any(not path.name.startswith(".") for path in self.path.iterdir())

    def _remove_earlier_run(self) -> None:
        for folder in (self.checkpoints, self.detector, self.evaluations, self.tensorboard, self.profile):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.history, self.evaluation, self.report):
            file.unlink(missing_ok=True)
