"""A training that was stopped, in whatever way, ends with the bits of one that was not."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from training_fixtures import STAGES, assert_equal_bits, at_step, make_trainer, state_of, train_until_killed

from twostage.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from twostage.errors import CheckpointError
from twostage.stopping import TrainingInterrupted
from twostage.trainer import StepReport, Trainer

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["pytest", "checkpoint_writers", "training_fixtures"])

KINDS_OF_MOMENTS = {
    1: "in an epoch",
    2: "between epochs",
    4: "between stages",
    5: "in an epoch of stage 2",
    6: "between epochs of stage 2",
    8: "at the end",
}


@pytest.fixture(scope="module", autouse=True)
def _processes_can_be_preloaded() -> Iterator[None]:
    # The server starts with the first process and takes its module path from the environment.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        yield


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[dict[str, Tensor], list[StepReport]]:
    trainer = make_trainer()
    reports: list[StepReport] = []
    trainer.run(on_step=reports.append)
    return state_of(trainer), reports


def run_to(step: int, trainer: Trainer, folder: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        trainer.run(checkpoints=folder, on_step=at_step(step, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert trainer.step == step


@pytest.mark.parametrize("step", KINDS_OF_MOMENTS, ids=KINDS_OF_MOMENTS.values())
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, step: int, uninterrupted: tuple[dict[str, Tensor], list[StepReport]]
) -> None:
    run_to(step, make_trainer(), tmp_path)
    trainer = make_trainer()
    assert trainer.resume(tmp_path) == []
    assert trainer.step == step
    reports: list[StepReport] = []
    trainer.run(on_step=reports.append)
    state, all_reports = uninterrupted
    assert reports == all_reports[step:]
    if step == trainer.total_steps:  # an optimiser is of no more use
        state = {name: value for name, value in state.items() if not name.startswith("optimizer.")}
    assert_equal_bits(state_of(trainer), state)


def test_a_run_resumed_after_every_single_step_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], list[StepReport]]
) -> None:
    for step in range(1, 8):
        trainer = make_trainer()
        trainer.resume(tmp_path)
        run_to(step, trainer, tmp_path)
    trainer = make_trainer()
    trainer.resume(tmp_path)
    trainer.run(checkpoints=tmp_path)
    assert_equal_bits(state_of(trainer), uninterrupted[0])


def test_restored_moments_lie_in_memory_as_their_weights_do(tmp_path: Path) -> None:
    run_to(3, make_trainer(), tmp_path)
    trainer = make_trainer()
    trainer.resume(tmp_path)
    assert trainer._optimizer is not None
    for parameter, values in trainer._optimizer.state.items():
        assert values["exp_avg"].stride() == values["exp_avg_sq"].stride() == parameter.stride()


# ---------------------------------------------------------------- what is resumed from


@pytest.mark.parametrize("leftovers", [None, (), (".lock", ".writing-step-000000001-0123abcd")])
def test_where_nothing_was_saved_it_starts_at_the_start(tmp_path: Path, leftovers: tuple[str, ...] | None) -> None:
    folder = tmp_path / "checkpoints"
    if leftovers is not None:
        folder.mkdir()
        for name in leftovers:
            (folder / name).mkdir()
    trainer = make_trainer()
    before = state_of(trainer)
    assert trainer.resume(folder) == []
    assert trainer.step == 0
    assert_equal_bits(state_of(trainer), before)


def test_a_damaged_checkpoint_is_passed_over_with_a_message(
    tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], list[StepReport]]
) -> None:
    make_trainer(stages=STAGES[:1]).run(checkpoints=tmp_path, checkpoint_every=1)
    file = tmp_path / "step-000000004" / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    trainer = make_trainer()
    (message,) = trainer.resume(tmp_path)
    assert "step-000000004" in message
    assert trainer.step == 3
    trainer.run()
    assert_equal_bits(state_of(trainer), uninterrupted[0])


def test_a_folder_with_damaged_checkpoints_alone_is_refused(tmp_path: Path) -> None:
    run_to(1, make_trainer(), tmp_path)
    (tmp_path / "step-000000001" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="holds no intact checkpoint"):
        make_trainer().resume(tmp_path)


@pytest.mark.parametrize(
    ("fingerprint", "changes"),
    [
        ({"seed": 1, "stage": {"epochs": 2}}, ["seed was 0, is 1"]),
        ({"seed": 0, "stage": {"epochs": 3}}, ["stage.epochs was 2, is 3"]),
        ({"seed": 5, "stage": {"epochs": 3}}, ["seed was 0, is 5", "stage.epochs was 2, is 3"]),
        ({"seed": 0, "stage": {"epochs": 2}, "new": "x"}, ["new was None, is 'x'"]),
        ({"stage": {"epochs": 2}}, ["seed was 0, is None"]),
    ],
)
def test_another_configuration_is_refused_and_every_changed_key_named(
    tmp_path: Path, fingerprint: dict[str, Any], changes: list[str]
) -> None:
    run_to(1, make_trainer(), tmp_path)
    trainer = make_trainer(fingerprint=fingerprint)
    before = state_of(trainer)
    with pytest.raises(CheckpointError) as raised:
        trainer.resume(tmp_path)
    assert f"another configuration: {'; '.join(changes)}. Accepted" in str(raised.value)
    assert trainer.step == 0
    assert_equal_bits(state_of(trainer), before)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(3, {}, {"config": {}}))
    with pytest.raises(CheckpointError, match="step-000000003 is no training checkpoint"):
        make_trainer().resume(tmp_path)


# ---------------------------------------------------------------- processes that are stopped


def start(folder: Path) -> tuple[Any, Connection]:
    receiver, sender = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(target=train_until_killed, args=(folder, sender))
    process.start()
    sender.close()
    assert receiver.poll(60), "the process did not start"
    assert receiver.recv() == "started"
    return process, receiver


def announced(receiver: Connection) -> list[int | str]:
    found = []
    while True:
        try:
            found.append(receiver.recv())
        except (EOFError, OSError):
            return found


def finish(folder: Path) -> Checkpoint:
    process, receiver = start(folder)
    assert announced(receiver)[-1] == "finished"
    process.join()
    return latest_checkpoint(folder).checkpoint


@pytest.fixture(scope="module")
def uninterrupted_process(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return finish(tmp_path_factory.mktemp("uninterrupted"))


def test_killed_at_random_moments_it_loses_one_step_at_most_and_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted_process: Checkpoint
) -> None:
    chance = random.Random(3)
    for _ in range(10):
        process, receiver = start(tmp_path)
        messages = [receiver.recv() for _ in range(chance.randint(0, 1))]
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        messages += announced(receiver)
        process.join()
        steps = [message for message in messages if isinstance(message, int)]
        if steps and steps[-1] > 0:
            # The step announced last was yet to be saved.
            assert latest_checkpoint(tmp_path).checkpoint.step >= steps[-1]
    found = finish(tmp_path)
    assert found.step == uninterrupted_process.step == 12
    assert_equal_bits(found.tensors, uninterrupted_process.tensors)


def test_ctrl_c_in_a_process_of_its_own_saves_and_resumes(tmp_path: Path, uninterrupted_process: Checkpoint) -> None:
    process, receiver = start(tmp_path)
    first = receiver.recv()
    os.kill(process.pid, signal.SIGINT)
    messages = [first, *announced(receiver)]
    process.join()
    assert messages[-1] == "interrupted"
    assert process.exitcode == 0
    assert isinstance(messages[-2], int)
    assert latest_checkpoint(tmp_path).checkpoint.step == messages[-2] + 1 < 12
    assert_equal_bits(finish(tmp_path).tensors, uninterrupted_process.tensors)
