"""The course of a training run as JSON lines: one row for every few steps, averaged over them."""

import json
from pathlib import Path
from typing import Any

from twostage.errors import OutputError
from twostage.files import write_text_atomic
from twostage.trainer import StepReport

_ROWS = 400


class History:
    """Appends rows to a file. Where a run is resumed, rows past the step it resumes from are dropped.

    Args:
        path: of the file; made if missing.
        total_steps: of the run, from which the length of a row follows.
        checkpoint_every: steps after which a row ends too, so that a run resumed there lacks none.
        resume_step: rows of this step and later ones are dropped.
    """

    def __init__(self, path: Path, total_steps: int, checkpoint_every: int, resume_step: int = 0) -> None:
        self.path = path
        self.total_steps = total_steps
        self.checkpoint_every = checkpoint_every
        self.steps_in_row = max(1, total_steps // _ROWS)
        self._pending: list[StepReport] = []
        self._speed: float | None = None
        kept = [row for row in read_history(path) if row["step"] < resume_step] if path.exists() else []
        write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, report: StepReport, patches_per_second: float | None = None) -> None:
        """Add a step, and the speed at which training runs now.

        Raises:
            OutputError: the file cannot be written.
        """
        self._speed = patches_per_second
        if self._pending and self._pending[-1].moment.stage != report.moment.stage:
            self._write()
        self._pending.append(report)
        done = report.step + 1
        if done % self.steps_in_row == 0 or done % self.checkpoint_every == 0 or done == self.total_steps:
            self._write()

    def close(self) -> None:
        """Write the steps that make no whole row yet: a run that is stopped goes on after them."""
        if self._pending:
            self._write()

    def _write(self) -> None:
        reports, self._pending = self._pending, []
        row: dict[str, Any] = {
            "step": reports[-1].step,
            "stage": reports[-1].moment.stage,
            "epoch": reports[-1].moment.epoch,
            "sigma": reports[-1].sigma,
            "loss": sum(report.loss for report in reports) / len(reports),
        }
        for term in reports[-1].terms:
            row[term] = sum(report.terms[term] for report in reports) / len(reports)
        if self._speed is not None:
            row["patches_per_second"] = round(self._speed, 1)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error}") from error


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a history file, in order; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows
