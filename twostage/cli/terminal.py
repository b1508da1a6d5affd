"""What a person sees on the terminal: progress and notes on stderr, results on stdout."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from twostage.distributed import Ranks
from twostage.progress import Progress

_SECONDS_BETWEEN_LINES = 10.0


class TerminalProgress(Progress):
    """Progress bars with the newest step below them; plain lines, a few a minute, where stderr is no terminal.

    A finished task leaves one line; notes appear above the bars.

    Args:
        console: where to draw; stderr if not given.
        seconds_between_lines: the shortest time between two plain lines of a task.
    """

    def __init__(
        self, console: Console | None = None, *, seconds_between_lines: float = _SECONDS_BETWEEN_LINES
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.seconds_between_lines = seconds_between_lines
        self._bars = _Bars(self.console) if self.console.is_terminal else None
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> "TerminalProgress":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        running = self._running.get(task)
        if running is None:
            bar = None if self._bars is None else self._bars.add_task(task, total=total, completed=done, detail=detail)
            running = self._running[task] = _Running(bar, first=done)
        if self._bars is not None and running.bar is not None:
            self._bars.update(running.bar, completed=done, total=total, detail=detail)
        elif done < total and time.monotonic() - running.last_line >= self.seconds_between_lines:
            self._line(f"{task} {done}/{total}{running.time_left(done, total)}  {detail}".rstrip())
            running.last_line = time.monotonic()
        if done >= total:
            self._finish(task, total, detail)

    def note(self, message: str) -> None:
        self._line(message)

    def _finish(self, task: str, total: int, detail: str) -> None:
        running = self._running.pop(task)
        if self._bars is not None and running.bar is not None:
            self._bars.remove_task(running.bar)
        self._line(f"{task} {total}/{total} in {_clock(running.seconds)}  {detail}".rstrip())

    def _line(self, message: str) -> None:
        self.console.print(Text(message), soft_wrap=True)


@contextmanager
def progress_of(ranks: Ranks) -> Iterator[Progress]:
    """Progress on the terminal for the first of several processes that work together; the others are silent."""
    if not ranks.first:
        yield Progress()
        return
    with TerminalProgress() as progress:
        yield progress


class _Running:
    """A task that is under way."""

    def __init__(self, bar: TaskID | None, first: int) -> None:
        self.bar = bar
        self.first = first
        self.started = time.monotonic()
        self.last_line = self.started

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def time_left(self, done: int, total: int) -> str:
        if done <= self.first:
            return ""
        return f"  {_clock(self.seconds / (done - self.first) * (total - done))} left"


class _Bars(Bars):
    """A bar for every running task, and under each what its newest step said."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=console, refresh_per_second=4)

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["detail"]:
                yield Text(f"  {task.fields['detail']}", style="dim", overflow="ellipsis", no_wrap=True)


def print_result(renderable: RenderableType) -> None:
    """Print to stdout."""
    Console(highlight=False, soft_wrap=isinstance(renderable, str)).print(
        Text(renderable) if isinstance(renderable, str) else renderable
    )


def print_error(message: str) -> None:
    """Print to stderr, whatever characters the message has."""
    sys.stderr.write(f"twostage: {message}\n")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
