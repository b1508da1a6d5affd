"""The rows of a training run: averaged, in order, and right after a resumption."""

from pathlib import Path

import pytest

from twostage.errors import OutputError
from twostage.history import History, read_history
from twostage.trainer import Moment, StepReport


def report(step: int, *, stage: int = 0, epoch: int = 0, loss: float | None = None) -> StepReport:
    loss = float(step) if loss is None else loss
    moment = Moment(stage, epoch, step, starts_stage=False, starts_epoch=False)
    return StepReport(step, moment, 0.5 + step / 1000, loss, {"aw_ssim": 2 * loss})


def written(
    path: Path, total: int, reports: list[StepReport], resume_step: int = 0, checkpoint_every: int = 10_000
) -> list[dict[str, float]]:
    history = History(path, total, checkpoint_every, resume_step)
    for one in reports:
        history.add(one)
    return read_history(path)


def test_a_short_run_has_a_row_for_every_step(tmp_path: Path) -> None:
    rows = written(tmp_path / "h", 3, [report(step, epoch=step // 2) for step in range(3)])
    assert rows == [
        {"step": 0, "stage": 0, "epoch": 0, "sigma": 0.5, "loss": 0.0, "aw_ssim": 0.0},
        {"step": 1, "stage": 0, "epoch": 0, "sigma": 0.501, "loss": 1.0, "aw_ssim": 2.0},
        {"step": 2, "stage": 0, "epoch": 1, "sigma": 0.502, "loss": 2.0, "aw_ssim": 4.0},
    ]


def test_a_long_run_has_rows_of_means_and_few_of_them(tmp_path: Path) -> None:
    rows = written(tmp_path / "h", 4000, [report(step) for step in range(4000)])
    assert len(rows) == 400
    assert rows[0]["step"] == 9
    assert rows[0]["loss"] == pytest.approx(4.5)
    assert rows[-1]["loss"] == pytest.approx(3994.5)
    assert rows[-1]["aw_ssim"] == pytest.approx(2 * 3994.5)


def test_no_row_spans_two_stages_and_the_last_steps_are_there(tmp_path: Path) -> None:
    # Rows of 2 steps; stage 1 begins at the odd step 401; 803 steps leave one over.
    rows = written(tmp_path / "h", 803, [report(step, stage=int(step >= 401)) for step in range(803)])
    at_boundary = [(row["step"], row["stage"], row["loss"]) for row in rows if 398 <= row["step"] <= 404]
    assert at_boundary == [(399, 0, 398.5), (400, 0, 400.0), (401, 1, 401.0), (403, 1, 402.5)]
    assert (rows[-1]["step"], rows[-1]["loss"]) == (802, 802.0)


def test_rows_from_the_resumed_step_on_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "h"
    written(path, 6, [report(step, loss=1.0) for step in range(5)])
    rows = written(path, 6, [report(step, loss=2.0) for step in range(3, 6)], resume_step=3)
    assert [(row["step"], row["loss"]) for row in rows] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]


def test_no_step_is_missing_after_a_kill_between_checkpoints(tmp_path: Path) -> None:
    """Rows of 10 steps; checkpoints after every 25: the run that died at step 37 goes on from 25."""
    path = tmp_path / "h"
    written(path, 4000, [report(step) for step in range(37)], checkpoint_every=25)
    rows = written(path, 4000, [report(step) for step in range(25, 50)], resume_step=25, checkpoint_every=25)
    assert [row["step"] for row in rows] == [9, 19, 24, 29, 39, 49]
    assert [row["loss"] for row in rows] == [4.5, 14.5, 22.0, 27.0, 34.5, 44.5]


def test_a_run_that_is_stopped_leaves_every_step_it_did(tmp_path: Path) -> None:
    path = tmp_path / "h"
    history = History(path, 4000, 200)
    for step in range(13):
        history.add(report(step))
    history.close()
    history.close()
    assert [(row["step"], row["loss"]) for row in read_history(path)] == [(9, 4.5), (12, 11.0)]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    history = History(tmp_path / "h", 3, 200)
    (tmp_path / "h").unlink()
    (tmp_path / "h").mkdir()
    with pytest.raises(OutputError, match=r"h cannot be written: .*Is a directory"):
        history.add(report(0))


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "h"
    written(path, 6, [report(step) for step in range(5)])
    assert written(path, 6, []) == []


def test_a_line_cut_short_by_a_kill_is_left_out_and_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "h"
    written(path, 6, [report(0), report(1)])
    path.write_bytes(path.read_bytes() + b'{"step": 2, "lo')
    assert [row["step"] for row in read_history(path)] == [0, 1]
    rows = written(path, 6, [report(2)], resume_step=2)
    assert [row["step"] for row in rows] == [0, 1, 2]
