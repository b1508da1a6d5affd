"""The training loop: both stages, checkpoints, exact resumption."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from twostage.autoencoder import Autoencoder
from twostage.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from twostage.config import StageConfig
from twostage.data.patches import Patches
from twostage.defects import DefectSampler
from twostage.errors import CheckpointError, NonFiniteLossError
from twostage.losses import PerceptualDistance, ReconstructionLoss, sigma_at

_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")
# Batches that are read from a disk before they are needed.
_BATCHES_AHEAD = 4


@dataclass(frozen=True)
class Moment:
    """A place in the schedule. All numbers count from 0; ``epoch`` runs on over both stages."""

    stage: int
    epoch: int
    step_in_epoch: int
    starts_stage: bool
    starts_epoch: bool


@dataclass(frozen=True)
class StepReport:
    """What a step did."""

    step: int
    moment: Moment
    sigma: float
    loss: float
    terms: dict[str, float]


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C arrived; the last checkpoint holds every finished step."""


class Trainer:
    """Trains an autoencoder through its stages on patches in memory.

    Args:
        model: on its device, in the weights to start from.
        stages: in order; each starts with a fresh Adam.
        store: the normal patches.
        defects: for the stages whose inputs are defective.
        lpips: for the losses that need it.
        batch_size: patches in a step.
        names: of the store's images, for error messages.
        fingerprint: JSON-able; a checkpoint resumes only where it is equal.
    """

    def __init__(
        self,
        model: Autoencoder,
        stages: Sequence[StageConfig],
        store: Patches,
        defects: DefectSampler,
        lpips: PerceptualDistance | None,
        *,
        batch_size: int,
        names: Sequence[str],
        fingerprint: dict[str, Any],
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.stages = tuple(stages)
        self.store = store
        self.defects = defects.to(self.device)
        self.losses = [ReconstructionLoss(stage.loss, lpips) for stage in self.stages]
        self.batch_size = min(batch_size, store.patches_per_epoch)
        self.names = names
        self.fingerprint = fingerprint
        self.steps_in_epoch = store.patches_per_epoch // self.batch_size
        self.step = 0
        self._optimizer: Adam | None = None
        self._read_until = -1

    @property
    def total_steps(self) -> int:
        return self.steps_in_epoch * sum(stage.epochs for stage in self.stages)

    def moment_of(self, step: int) -> Moment:
        """Where in the schedule a step lies, ``step`` < ``total_steps``."""
        epoch, step_in_epoch = divmod(step, self.steps_in_epoch)
        first_epoch = 0
        for number, stage in enumerate(self.stages):
            if epoch < first_epoch + stage.epochs:
                starts_epoch = step_in_epoch == 0
                return Moment(number, epoch, step_in_epoch, starts_epoch and epoch == first_epoch, starts_epoch)
            first_epoch += stage.epochs
        raise IndexError(f"step is {step}; accepted: 0 to {self.total_steps - 1}")

    def run(
        self,
        *,
        checkpoints: Path | None = None,
        checkpoint_every: int = 200,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> None:
        """Train from the current step to the end.

        Checkpoints are written to ``checkpoints`` every ``checkpoint_every`` steps, at the end, and on Ctrl-C.

        Raises:
            NonFiniteLossError: the loss or a weight became NaN or infinite; the last checkpoint is from before that.
            TrainingInterrupted: Ctrl-C; the finished steps were saved.
        """
        self.model.train()
        saved = self.step
        with _interrupt_flag() as interrupted:
            while self.step < self.total_steps and not interrupted.is_set():
                report = self._train_step()
                self.step += 1
                if on_step is not None:
                    on_step(report)
                if checkpoints is not None and self.step % checkpoint_every == 0:
                    self.save(checkpoints)
                    saved = self.step
            if checkpoints is not None and saved < self.step:
                self.save(checkpoints)
        if interrupted.is_set():
            raise TrainingInterrupted(f"training stopped after step {self.step} of {self.total_steps}")

    def _train_step(self) -> StepReport:
        moment = self.moment_of(self.step)
        stage = self.stages[moment.stage]
        if self._optimizer is None or moment.starts_stage:
            self._optimizer = self._new_optimizer(stage)
        samples = self._samples(moment)
        normal = self.store.patches(samples, moment.epoch).to(self.device)
        self._read_ahead()
        inputs = normal
        if stage.defective:
            polygons = self.defects.draw(samples, self.store.image_of(samples), moment.epoch)
            inputs, _ = self.defects.paste(normal, polygons)
        sigma = sigma_at(stage.loss, moment.step_in_epoch, self.steps_in_epoch)
        prediction = self.model(inputs)
        window = torch.tensor(sigma, device=self.device)
        loss = self.losses[moment.stage](prediction, normal, window)
        value = loss.total.item()
        if not torch.isfinite(loss.total):
            raise NonFiniteLossError(self._describe_failure(value, loss.terms, sigma, samples))
        self._optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        self._optimizer.step()
        return StepReport(self.step, moment, sigma, value, {name: term.item() for name, term in loss.terms.items()})

    def _read_ahead(self) -> None:
        last = min(self.step + _BATCHES_AHEAD, self.total_steps - 1)
        for step in range(max(self._read_until, self.step) + 1, last + 1):
            moment = self.moment_of(step)
            self.store.prepare(self._samples(moment), moment.epoch)
        self._read_until = last

    def _samples(self, moment: Moment) -> Tensor:
        first = moment.step_in_epoch * self.batch_size
        return self.store.samples_at(torch.arange(first, first + self.batch_size), moment.epoch)

    def _new_optimizer(self, stage: StageConfig) -> Adam:
        return Adam(self.model.parameters(), lr=stage.learning_rate, fused=True)

    def _describe_failure(self, value: float, terms: dict[str, Tensor], sigma: float, samples: Tensor) -> str:
        parts = ", ".join(f"{name} {term.item()}" for name, term in terms.items())
        images = ", ".join(sorted({self.names[index] for index in self.store.image_of(samples).tolist()}))
        return (
            f"the loss is {value} ({parts}) at step {self.step}, sigma {sigma:g}; the batch came from {images}. "
            "The last checkpoint is intact. Look at these images, or train anew with a smaller learning rate"
        )

    def save(self, folder: Path) -> Path:
        """Write a checkpoint from which :meth:`resume` continues bit for bit (on a CPU with as many threads).

        Raises:
            NonFiniteLossError: a weight or a moment of the optimiser is NaN or infinite; nothing was written.
        """
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self._optimizer is not None:
            for index, state in self._optimizer.state_dict()["state"].items():
                tensors.update({f"optimizer.{index}.{name}": state[name] for name in _OPTIMIZER_STATE})
        # A finite loss can have an infinite gradient: the weights show it one step before the loss does.
        broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if broken:
            raise NonFiniteLossError(
                f"{len(broken)} tensors are not finite after step {self.step - 1}, the first is {broken[0]}. "
                "The last checkpoint is intact. Train anew with a smaller learning rate"
            )
        return save_checkpoint(folder, Checkpoint(self.step, tensors, {"fingerprint": self.fingerprint}))

    def resume(self, folder: Path) -> list[str]:
        """Continue from the newest intact checkpoint in ``folder``; where nothing was saved yet, from the start.

        Returns:
            One message for each newer checkpoint that was damaged and skipped.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest belongs to another configuration or is no
                training checkpoint.
        """
        if not _holds_checkpoints(folder):
            return []
        latest = latest_checkpoint(folder)
        checkpoint = latest.checkpoint
        if "fingerprint" not in checkpoint.metadata:
            raise CheckpointError(f"{latest.path} is no training checkpoint; accepted: the checkpoints of a run")
        saved, own = _flat(checkpoint.metadata["fingerprint"]), _flat(self.fingerprint)
        differing = sorted(key for key in {*saved, *own} if saved.get(key) != own.get(key))
        if differing:
            changes = "; ".join(f"{key} was {saved.get(key)!r}, is {own.get(key)!r}" for key in differing)
            raise CheckpointError(f"{folder} holds a run of another configuration: {changes}. Accepted: the same one")
        self.step = checkpoint.step
        weights = {name[6:]: value for name, value in checkpoint.tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(weights)
        if self.step < self.total_steps:
            self._restore_optimizer(checkpoint.tensors)
        return [str(error) for error in latest.damaged]

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        self._optimizer = self._new_optimizer(self.stages[self.moment_of(self.step).stage])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, field = name.split(".")
                state.setdefault(int(index), {})[field] = value
        for parameter, moments in zip(self.model.parameters(), (state[index] for index in sorted(state)), strict=True):
            # The fused step pairs values by their place in memory: a moment needs the strides of its parameter.
            for field in ("exp_avg", "exp_avg_sq"):
                moments[field] = torch.empty_like(parameter).copy_(moments[field])
        layout = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": state, "param_groups": layout["param_groups"]})


def _holds_checkpoints(folder: Path) -> bool:
    """Whether a save was ever finished there. A run that is killed during its first leaves a folder without any."""
    return folder.is_dir() and any(path.name.startswith(("step-", ".replaced-")) for path in folder.iterdir())


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


@contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """Ctrl-C sets the flag, so that a step is never cut in half; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)
