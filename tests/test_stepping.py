"""Steps computed in other ways train the same model; losses that are read late hide nothing."""

import copy
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest
import torch
from tolerances import tolerance
from torch import Tensor
from training_fixtures import PATCH, STAGES, assert_equal_bits, at_step, make_images, make_trainer, state_of

from twostage.checkpoint import latest_checkpoint
from twostage.config import ComputeConfig, Precision
from twostage.data.patches import PatchStore
from twostage.devices import gains_by_bf16
from twostage.distributed import Ranks
from twostage.errors import ConfigError, NonFiniteLossError
from twostage.history import History, read_history
from twostage.losses import ReconstructionLoss
from twostage.stepping import CudaGraph, GraphedSteps, Steps, make_adam
from twostage.stopping import TrainingInterrupted
from twostage.trainer import StepReport, Trainer

_Result = TypeVar("_Result")


def reports_of(trainer: Trainer) -> list[StepReport]:
    reports: list[StepReport] = []
    trainer.run(on_step=reports.append)
    return reports


# ---------------------------------------------------------------- losses that are read every few steps


@pytest.mark.parametrize("every", [2, 3, 100])
def test_losses_read_late_are_the_same_and_the_weights_too(every: int) -> None:
    """8 steps in two stages: no reading spans both."""
    trainer, late = make_trainer(), make_trainer(compute=ComputeConfig(log_every=every))
    told_at: list[int] = []
    reports: list[StepReport] = []

    def on_step(report: StepReport) -> None:
        told_at.append(late.step)
        reports.append(report)

    late.run(on_step=on_step)
    assert reports == reports_of(trainer)
    assert told_at == {2: [2, 2, 4, 4, 6, 6, 8, 8], 3: [3, 3, 3, 4, 6, 6, 8, 8], 100: [4] * 4 + [8] * 4}[every]
    assert_equal_bits(state_of(late), state_of(trainer))


def test_the_history_has_a_row_for_every_step_however_they_are_read(tmp_path: Path) -> None:
    histories = []
    for every in (1, 3):
        trainer = make_trainer(compute=ComputeConfig(log_every=every))
        history = History(tmp_path / f"{every}", trainer.total_steps, 200)
        trainer.run(on_step=history.add)
        histories.append(read_history(history.path))
    assert histories[0] == histories[1]
    assert [row["step"] for row in histories[0]] == list(range(8))


def spoiled(trainer: Trainer, from_step: int) -> None:
    """Every image is NaN from a step on."""
    images = [torch.full((1, PATCH, PATCH + 32), math.nan) for _ in make_images()]
    broken = PatchStore(images, PATCH, 0)
    intact = trainer.store.patches

    def patches(samples: Tensor, epoch: int) -> Tensor:
        return (broken.patches if trainer.step >= from_step else intact)(samples, epoch)

    trainer.store.patches = patches  # type: ignore[method-assign]


def test_a_loss_that_is_no_number_is_named_by_its_own_step_and_spoils_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(compute=ComputeConfig(log_every=4))
    spoiled(trainer, 5)
    told: list[int] = []
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan .* at step 5, .* came from image-\d\.png"):
        trainer.run(checkpoints=tmp_path, checkpoint_every=3, on_step=lambda report: told.append(report.step))
    assert told == [0, 1, 2, 3, 4]
    # The check before the checkpoint of step 6 found it, and the weights are those that step 5 met.
    assert latest_checkpoint(tmp_path).checkpoint.step == trainer.step - 2 == 3
    good = make_trainer()
    with pytest.raises(KeyboardInterrupt):
        good.run(on_step=at_step(5, _stop))
    assert_equal_bits(dict(trainer.model.named_parameters()), dict(good.model.named_parameters()))


def _stop() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_between_two_readings_saves_and_tells_of_every_step(tmp_path: Path) -> None:
    trainer = make_trainer(compute=ComputeConfig(log_every=100))
    told: list[int] = []
    launched = trainer.store.patches

    def patches(samples: Tensor, epoch: int) -> Tensor:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return launched(samples, epoch)

    trainer.store.patches = patches  # type: ignore[method-assign]
    with pytest.raises(TrainingInterrupted, match="stopped after step 3 of 8"):
        trainer.run(checkpoints=tmp_path, on_step=lambda report: told.append(report.step))
    assert told == [0, 1, 2]
    assert latest_checkpoint(tmp_path).checkpoint.step == 3


# ---------------------------------------------------------------- other ways to compute


def test_bf16_keeps_weights_and_losses_in_float32_and_near() -> None:
    exact, short = make_trainer(), make_trainer(compute=ComputeConfig(precision="bf16"))
    assert all(value.dtype == torch.float32 for value in short.model.parameters())
    for one, other in zip(reports_of(exact), reports_of(short), strict=True):
        assert 0 < abs(one.loss - other.loss) < tolerance("bf16 loss", torch.float32)
    assert short.last_batch is not None
    assert short.last_batch[1].dtype == torch.float32
    assert short._optimizer is not None
    assert all(v["exp_avg"].dtype == torch.float32 for v in short._optimizer.state.values())


@pytest.mark.parametrize("supported", [True, False])
def test_automatic_precision_is_what_the_processor_gains_by(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert gains_by_bf16(torch.device("cpu")) == supported
    assert not gains_by_bf16(torch.device("cuda"))
    assert _bf16_of("auto") == supported
    assert _bf16_of("bf16")
    assert not _bf16_of("float32")
    # Of several processes all must gain, so that they compute alike.
    monkeypatch.setattr("twostage.trainer.from_all", lambda own: [own, False])
    assert not _bf16_of("auto")


def _bf16_of(precision: Precision) -> bool:
    own = make_trainer()
    return Trainer(
        own.model,
        own.stages,
        own.store,
        own.defects,
        None,
        batch_size=2,
        names=own.names,
        fingerprint={},
        compute=ComputeConfig(precision=precision),
    ).bf16


def test_another_layout_in_memory_trains_the_same_model() -> None:
    """In float64, so that other orders of sums show far behind."""
    last, first = (
        make_trainer(make_images(4), batch_size=4, double=True, compute=ComputeConfig(channels_last=layout))
        for layout in (True, False)
    )
    kernel = "encoder.1.0.weight"
    assert dict(last.model.named_parameters())[kernel].is_contiguous(memory_format=torch.channels_last)
    assert dict(first.model.named_parameters())[kernel].is_contiguous()
    last.run()
    first.run()
    for name, value in first.model.named_parameters():
        torch.testing.assert_close(value, dict(last.model.named_parameters())[name], rtol=0, atol=1e-10)


def test_a_compiled_network_trains_the_same_model() -> None:
    """Through dynamo and autograd, without the compiler for this processor behind them, which takes half a minute."""
    plain, compiled = make_trainer(), make_trainer(compute=ComputeConfig(compile=True))
    seen: list[object] = []

    def backend(graph: torch.fx.GraphModule, examples: object) -> object:
        seen.append(examples)
        return graph

    original = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda network, dynamic: original(network, dynamic=dynamic, backend=backend))
        found = reports_of(compiled)
    assert len(seen) == 1, "one graph, without breaks"
    assert found == reports_of(plain)
    assert_equal_bits(state_of(compiled), state_of(plain))


class Rehearsed:
    """In place of a CUDA graph: what was recorded is done again on the same tensors, and recording does nothing."""

    def __init__(self, steps: Callable[[], Steps]) -> None:
        self.steps = steps

    def aside(self, work: Callable[[], _Result]) -> _Result:
        return work()

    def record(self, work: Callable[[], _Result]) -> _Result:
        steps = self.steps()
        before = copy.deepcopy((steps.network.state_dict(), steps.optimizer.state_dict()))
        self.work, self.result = work, work()
        steps.network.load_state_dict(before[0])
        steps.optimizer.load_state_dict(before[1])
        return self.result

    def replay(self) -> None:
        for place, value in zip(self.result, self.work(), strict=True):  # type: ignore[call-overload]
            if isinstance(place, Tensor):
                place.data.copy_(value)


def test_replayed_steps_are_the_steps_themselves() -> None:
    """What is left to a CUDA graph is here done by the CPU: the tensors it reads and writes are the same."""

    def steps_of(graphed: bool) -> tuple[Steps, torch.nn.Module]:
        model = make_trainer().model.train()
        optimizer = make_adam(model, 1e-3, ComputeConfig())
        loss = ReconstructionLoss(STAGES[0].loss)
        if not graphed:
            return Steps(model, loss, optimizer, bf16=False), model
        rehearsed = Rehearsed(lambda: steps)
        steps = GraphedSteps(model, loss, optimizer, bf16=False, graph=cast("CudaGraph", rehearsed))
        return steps, model

    (plain, model), (graphed, other) = steps_of(False), steps_of(True)
    generator = torch.Generator().manual_seed(0)
    values = []
    for step in range(8):
        batch = torch.rand(2, 1, PATCH, PATCH, generator=generator)
        sigma = torch.tensor(0.5 + step / 4)
        one, two = plain(batch, batch, sigma), graphed(batch, batch, sigma)
        assert torch.equal(one.prediction, two.prediction)
        values.append((one.values, two.values))
    assert all(torch.equal(one, two) for one, two in values), "values of earlier steps are kept"
    assert_equal_bits(dict(model.state_dict()), dict(other.state_dict()))


def test_a_cuda_graph_on_a_cpu_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"compute\.cuda_graph is True, the device is cpu .* accepted: one process on"
    ):
        make_trainer(compute=ComputeConfig(cuda_graph=True))


def test_several_processes_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twostage.trainer.current_ranks", lambda: Ranks(0, 2))
    with pytest.raises(ConfigError, match=r"compute\.compile is True and the processes are 2; accepted: one process"):
        make_trainer(compute=ComputeConfig(compile=True))
