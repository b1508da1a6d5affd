"""One process at a time in a folder."""

import os
import time
from pathlib import Path

from twostage.locking import locked


def never() -> None:
    raise AssertionError("the lock is held by another")


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path, never) as held:
        assert held
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with locked(tmp_path, never) as held:
            assert held
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_who_finds_it_busy_may_wait(tmp_path: Path) -> None:
    ready, done = os.pipe(), []
    child = os.fork()
    if child == 0:
        with locked(tmp_path, never):
            os.write(ready[1], b"x")
            time.sleep(0.3)
        os._exit(0)
    os.read(ready[0], 1)
    with locked(tmp_path, lambda: done.append("busy")) as held:
        assert held
    assert done == ["busy"]
    assert os.waitpid(child, 0)[1] == 0
