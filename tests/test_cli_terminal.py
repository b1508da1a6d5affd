"""What progress looks like on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from twostage.cli.terminal import TerminalProgress


def _log(seconds_between_lines: float) -> tuple[TerminalProgress, io.StringIO]:
    stream = io.StringIO()
    return TerminalProgress(Console(file=stream, width=80), seconds_between_lines=seconds_between_lines), stream


def test_a_log_gets_a_line_at_the_end_of_a_task_and_few_before() -> None:
    progress, stream = _log(seconds_between_lines=3600)
    with progress:
        for done in range(1, 1001):
            progress.update("training", done, 1000, f"loss {1 / done:.4f}")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training 1000/1000 in 0:00:0")
    assert lines[0].endswith("loss 0.0010")


def test_lines_in_between_say_how_long_it_will_take() -> None:
    progress, stream = _log(seconds_between_lines=0)
    with progress:
        progress.update("training", 1, 3, "stage 1")
        progress.update("training", 2, 3, "stage 1")
    assert [line.split("  ") for line in stream.getvalue().splitlines()] == [
        ["training 1/3", "stage 1"],
        ["training 2/3", "0:00:00 left", "stage 1"],
    ]


def test_a_task_of_the_same_name_can_come_again() -> None:
    progress, stream = _log(seconds_between_lines=3600)
    with progress:
        for _ in range(2):
            progress.update("evaluating", 1, 2)
            progress.update("evaluating", 2, 2)
    assert len(stream.getvalue().splitlines()) == 2


def test_long_lines_and_brackets_stay_as_they_are() -> None:
    progress, stream = _log(seconds_between_lines=0)
    with progress:
        progress.note("/data/[red]/" + "x" * 200)
    assert stream.getvalue() == "/data/[red]/" + "x" * 200 + "\n"


@pytest.mark.parametrize("width", [40, 120])
def test_a_terminal_shows_a_bar_with_the_newest_step_below_and_notes_above(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    with TerminalProgress(console) as progress:
        progress.update("training", 5, 10, "stage 2  loss 0.1234  sigma 1.50")
        progress.note("a note")
        progress.update("training", 6, 10, "stage 2  loss 0.1111  sigma 1.60")
    shown = stream.getvalue()
    last = shown[shown.rindex("training") :]
    assert "6/10" in last
    assert "stage 2  loss 0.1111" in last.splitlines()[1]
    assert shown.index("a note") < shown.rindex("training")
