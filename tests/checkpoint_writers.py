"""Checkpoints to save, and processes that save them until they are killed (here, so that they start quickly)."""

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from twostage.checkpoint import Checkpoint, save_checkpoint


def make(step: int, mark: float | None = None) -> Checkpoint:
    """A checkpoint whose every part tells its step and mark, so that a mixture of two would show."""
    value = float(step) if mark is None else mark
    return Checkpoint(step, {"weight": torch.full((64, 33), value)}, {"mark": value, "stage": "normal"})


def assert_is(found: Checkpoint, accepted: Checkpoint) -> None:
    assert (found.step, found.metadata) == (accepted.step, accepted.metadata)
    assert found.tensors.keys() == accepted.tensors.keys()
    for name, tensor in accepted.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def save_without_end(folder: Path, first: int, announcements: Connection) -> None:
    announcements.send(first - 1)
    step = first
    while True:
        save_checkpoint(folder, make(step))
        announcements.send(step)
        step += 1


def save_and_die(folder: Path, step: int, mark: float, event_of_death: int) -> None:
    """Kill this process just before the given one of its operations on files."""
    operations = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "fcntl.flock")
    count = 0

    def hook(event: str, arguments: object) -> None:
        nonlocal count
        if event in operations:
            count += 1
            if count == event_of_death:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    save_checkpoint(folder, make(step, mark))
