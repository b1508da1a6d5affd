"""Checkpoints are never half there, whenever the process that writes them is killed."""

import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from checkpoint_writers import assert_is, make, names, save_and_die, save_without_end

from twostage.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["pytest", "checkpoint_writers"])


@pytest.fixture(autouse=True)
def _writers_can_be_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    # The server starts with the first process and takes its module path from the environment.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def last_announced(announcements: Connection) -> int:
    last = -1
    while True:
        try:
            last = announcements.recv()
        except (EOFError, OSError):
            return last


def assert_everything_visible_is_intact(folder: Path) -> None:
    for path in folder.glob("step-*"):
        step = int(path.name.removeprefix("step-"))
        assert load_checkpoint(path).step == step


def test_killed_at_random_moments_the_last_announced_checkpoint_is_there(tmp_path: Path) -> None:
    delays = random.Random(20)
    save_checkpoint(tmp_path, make(0))
    reached = 0
    for _ in range(25):
        receiver, sender = FORKSERVER.Pipe(duplex=False)
        writer = FORKSERVER.Process(target=save_without_end, args=(tmp_path, reached + 1, sender))
        writer.start()
        sender.close()
        assert receiver.poll(60), "the writer did not start"
        time.sleep(delays.uniform(0, 0.03))
        writer.kill()
        announced = max(reached, last_announced(receiver))
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        latest = latest_checkpoint(tmp_path)
        assert latest.damaged == ()
        assert latest.checkpoint.step in (announced, announced + 1)
        assert_is(latest.checkpoint, make(latest.checkpoint.step))
        assert_everything_visible_is_intact(tmp_path)
        reached = latest.checkpoint.step
    save_checkpoint(tmp_path, make(reached + 1))
    assert names(tmp_path) == [f"step-{reached:09d}", f"step-{reached + 1:09d}"]


@pytest.mark.parametrize("step", [2, 3], ids=["the step is saved again", "the step is new"])
def test_killed_before_each_single_operation_old_or_new_is_there(tmp_path: Path, step: int) -> None:
    old, new = make(2, mark=10.0), make(step, mark=20.0)
    marks = []
    event = 0
    exit_code: int | None = -signal.SIGKILL
    while exit_code == -signal.SIGKILL:
        event += 1
        folder = tmp_path / str(event)
        save_checkpoint(folder, make(1))
        save_checkpoint(folder, old)
        writer = FORKSERVER.Process(target=save_and_die, args=(folder, step, 20.0, event))
        writer.start()
        writer.join()
        exit_code = writer.exitcode
        latest = latest_checkpoint(folder)
        assert latest.damaged == ()
        mark = latest.checkpoint.metadata["mark"]
        assert_is(latest.checkpoint, new if mark == 20.0 else old)
        assert_everything_visible_is_intact(folder)
        marks.append(mark)
        save_checkpoint(folder, make(9))
        assert len(names(folder)) == 2
    assert exit_code == 0
    assert marks == sorted(marks), "once the new checkpoint is there it stays"
    assert {marks[0], marks[-1]} == {10.0, 20.0}
    assert event > 10
