"""Who watches a training: the progress on the terminal, the history file, TensorBoard, the profiler."""

import time
from collections import deque

from twostage.history import History
from twostage.profiling import Profiler
from twostage.progress import Progress
from twostage.tensorboard import Board
from twostage.trainer import StepReport, Trainer

_STEPS_OF_SPEED = 50


class Speed:
    """Patches a second over the last steps."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._done = 0
        self._moments: deque[tuple[int, float]] = deque(maxlen=_STEPS_OF_SPEED + 1)

    def after_step(self, steps: int = 1) -> float | None:
        """To be called after every so many steps; None after the first, whose beginning nobody saw."""
        self._done += steps
        self._moments.append((self._done, time.perf_counter()))
        (before, began), (done, ended) = self._moments[0], self._moments[-1]
        return (done - before) * self.batch_size / (ended - began) if ended > began else None


class Watcher:
    """Tells of every step whoever wants to know.

    Args:
        trainer: whose steps they are.
        progress: of the terminal.
        history: the file of rows; None where none is kept.
        board: TensorBoard; None without it.
        profiler: None where nothing is profiled.
    """

    def __init__(
        self,
        trainer: Trainer,
        progress: Progress,
        history: History | None = None,
        board: Board | None = None,
        profiler: Profiler | None = None,
    ) -> None:
        self.trainer = trainer
        self.progress = progress
        self.history = history
        self.board = board
        self.profiler = profiler
        self._speed = Speed(trainer.batch_size)
        self._seen = trainer.step
        self._patches_per_second: float | None = None

    def after_step(self, report: StepReport) -> None:
        """To be called with every step's report; the trainer may be some steps further by then."""
        if self.trainer.step > self._seen:
            self._patches_per_second = self._speed.after_step(self.trainer.step - self._seen)
            self._seen = self.trainer.step
        speed = self._patches_per_second
        if self.history is not None:
            self.history.add(report, speed)
        if self.board is not None:
            self.board.add(report, speed)
        if self.profiler is not None:
            self.profiler.after_step()
        terms = "  ".join(f"{name} {value:.4f}" for name, value in report.terms.items())
        detail = f"stage {report.moment.stage + 1}  loss {report.loss:.4f}  {terms}  sigma {report.sigma:.2f}"
        if speed is not None:
            detail += f"  {speed:,.0f} patches/s"
        self.progress.update("training", report.step + 1, self.trainer.total_steps, detail)

    def close(self) -> None:
        """Write what is still to be written."""
        if self.history is not None:
            self.history.close()
        if self.board is not None:
            self.board.close()
        if self.profiler is not None:
            self.profiler.finish()
