"""The training loop: both stages, checkpoints, exact resumption."""

import inspect
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam
from torch.profiler import record_function

from twostage.autoencoder import Autoencoder
from twostage.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from twostage.config import StageConfig
from twostage.data.patches import Patches
from twostage.defects import DefectSampler
from twostage.distributed import current_ranks, from_all, sums
from twostage.errors import CheckpointError, ConfigError, NonFiniteLossError
from twostage.losses import LossParts, PerceptualDistance, ReconstructionLoss, sigma_at

_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")
PHASES = ("data", "defects", "forward", "losses", "backward", "optimiser")
"""What a step consists of, as a profiler sees it. The rest is the host's own."""
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
    """Trains an autoencoder through its stages.

    Where several processes work together, each takes its share of every batch; the weights are those of one process, to
    rounding. The first writes.

    Args:
        model: on its device, in the weights to start from.
        stages: in order; each starts with a fresh Adam.
        store: the normal patches.
        defects: for the stages whose inputs are defective.
        lpips: for the losses that need it.
        batch_size: patches in a step, of all processes together.
        names: of the store's images, for error messages.
        fingerprint: JSON-able; a checkpoint resumes only where it is equal.

    Raises:
        ConfigError: the processes cannot share a batch evenly.
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
        self.ranks = current_ranks()
        if self.batch_size % self.ranks.size:
            raise ConfigError(
                f"a batch has {self.batch_size} patches; accepted: a multiple of the {self.ranks.size} processes"
            )
        self.steps_in_epoch = store.patches_per_epoch // self.batch_size
        self.step = 0
        self._optimizer: Adam | None = None
        self._read_until = -1
        self._parallel: nn.Module | None = None
        self.last_batch: tuple[Tensor, Tensor, Tensor] | None = None
        """Inputs, reconstructions and targets of this process's share of the newest batch."""

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

        Checkpoints are written to ``checkpoints`` every ``checkpoint_every`` steps, at the end, on Ctrl-C and when the
        process is asked to end (SIGTERM).

        Raises:
            NonFiniteLossError: the loss or a weight became NaN or infinite; the last checkpoint is from before that.
            TrainingInterrupted: Ctrl-C or SIGTERM, in any of the processes; the finished steps were saved.
        """
        self.model.train()
        self._parallel = self._among_ranks()
        saved = self.step
        stopping = False
        with _interrupt_flag() as interrupted:
            while self.step < self.total_steps and not stopping:
                with record_function("step"):
                    report, stopping = self._train_step(interrupted)
                self.step += 1
                if on_step is not None:
                    on_step(report)
                if self.ranks.size == 1:
                    stopping = interrupted.is_set()
                if checkpoints is not None and self.step % checkpoint_every == 0:
                    self.save(checkpoints)
                    saved = self.step
            if checkpoints is not None and saved < self.step:
                self.save(checkpoints)
        if stopping:
            raise TrainingInterrupted(f"training stopped after step {self.step} of {self.total_steps}")

    def _among_ranks(self) -> nn.Module:
        """The model; with several processes, one whose gradients are averaged over them."""
        if self.ranks.size == 1:
            return self.model
        # The running statistics are equal anyway: they are those of the whole batch. Newer versions of torch call the
        # option by another name.
        names = inspect.signature(DistributedDataParallel).parameters
        options: dict[str, Any] = {name: False for name in ("forward_sync_buffers",) if name in names}
        return DistributedDataParallel(self.model, **(options or {"broadcast_buffers": False}))

    def _train_step(self, interrupted: threading.Event) -> tuple[StepReport, bool]:
        """One step, and whether one of the processes was asked to stop meanwhile."""
        assert self._parallel is not None
        moment = self.moment_of(self.step)
        stage = self.stages[moment.stage]
        if self._optimizer is None or moment.starts_stage:
            self._optimizer = self._new_optimizer(stage)
        with record_function("data"):
            samples = self._samples(moment)
            normal = self.store.patches(samples, moment.epoch).to(self.device)
            self._read_ahead()
        inputs = normal
        if stage.defective:
            with record_function("defects"):
                polygons = self.defects.draw(samples, self.store.image_of(samples), moment.epoch)
                inputs, _ = self.defects.paste(normal, polygons)
        sigma = sigma_at(stage.loss, moment.step_in_epoch, self.steps_in_epoch)
        with record_function("forward"):
            prediction = self._parallel(inputs)
        with record_function("losses"):
            window = torch.tensor(sigma, device=self.device)
            loss = self.losses[moment.stage](prediction, normal, window)
        self.last_batch = inputs, prediction.detach(), normal
        value, terms, stopping = self._agree(loss, interrupted.is_set())
        if not math.isfinite(value):
            raise NonFiniteLossError(self._describe_failure(value, terms, sigma, moment))
        with record_function("backward"):
            self._optimizer.zero_grad()
            torch.autograd.backward(loss.total)
        with record_function("optimiser"):
            self._optimizer.step()
        return StepReport(self.step, moment, sigma, value, terms), stopping

    def _agree(self, loss: LossParts, stopping: bool) -> tuple[float, dict[str, float], bool]:
        """The loss and its terms over the whole batch, and whether any process wants to stop."""
        own = [loss.total.item(), *(term.item() for term in loss.terms.values()), float(stopping)]
        value, *terms, wanted = (total / self.ranks.size for total in sums(own))
        return value, dict(zip(loss.terms, terms, strict=True)), wanted > 0

    def _read_ahead(self) -> None:
        last = min(self.step + _BATCHES_AHEAD, self.total_steps - 1)
        for step in range(max(self._read_until, self.step) + 1, last + 1):
            moment = self.moment_of(step)
            self.store.prepare(self._samples(moment), moment.epoch)
        self._read_until = last

    def _samples(self, moment: Moment) -> Tensor:
        """This process's share of a batch."""
        own: Tensor = self.ranks.share(self._batch(moment))
        return own

    def _batch(self, moment: Moment) -> Tensor:
        first = moment.step_in_epoch * self.batch_size
        return self.store.samples_at(torch.arange(first, first + self.batch_size), moment.epoch)

    def _new_optimizer(self, stage: StageConfig) -> Adam:
        return Adam(self.model.parameters(), lr=stage.learning_rate, fused=True)

    def _describe_failure(self, value: float, terms: dict[str, float], sigma: float, moment: Moment) -> str:
        parts = ", ".join(f"{name} {term}" for name, term in terms.items())
        owners = self.store.image_of(self._batch(moment)).tolist()
        images = ", ".join(sorted({self.names[index] for index in owners}))
        return (
            f"the loss is {value} ({parts}) at step {self.step}, sigma {sigma:g}; the batch came from {images}. "
            "The last checkpoint is intact. Look at these images, or train anew with a smaller learning rate"
        )

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which :meth:`resume` continues bit for bit (on a CPU with as many threads).

        With several processes all have to call it, and the first writes. Any number of them can resume.

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
        if self.ranks.first:
            save_checkpoint(folder, Checkpoint(self.step, tensors, {"fingerprint": self.fingerprint}))

    def resume(self, folder: Path) -> list[str]:
        """Continue from the newest intact checkpoint in ``folder``; where nothing was saved yet, from the start.

        Returns:
            One message for each newer checkpoint that was damaged and skipped.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest belongs to another configuration or is no
                training checkpoint; or several processes see different ones.
        """
        if not _holds_checkpoints(folder):
            self._require_agreement(folder)
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
        self._require_agreement(folder)
        weights = {name[6:]: value for name, value in checkpoint.tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(weights)
        if self.step < self.total_steps:
            self._restore_optimizer(checkpoint.tensors)
        return [str(error) for error in latest.damaged]

    def _require_agreement(self, folder: Path) -> None:
        steps = from_all(self.step)
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes see other checkpoints in {folder}: steps {sorted(set(steps))}; accepted: a folder that "
                "all machines share"
            )

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
    """Ctrl-C and SIGTERM set the flag, so that a step is never cut in half; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
