"""The training loop: both stages, checkpoints, exact resumption."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam
from torch.profiler import record_function

from twostage.autoencoder import Autoencoder
from twostage.checkpoint import (
    Checkpoint,
    holds_checkpoints,
    latest_checkpoint,
    save_checkpoint,
    under_prefix,
    with_prefix,
)
from twostage.config import ComputeConfig, StageConfig
from twostage.data.patches import Patches
from twostage.defects import DefectSampler
from twostage.devices import gains_by_bf16
from twostage.distributed import current_ranks, from_all, sums
from twostage.errors import CheckpointError, ConfigError, NonFiniteLossError
from twostage.losses import PerceptualDistance, ReconstructionLoss, sigma_at
from twostage.stepping import CudaGraph, GraphedSteps, Steps, make_adam
from twostage.stopping import TrainingInterrupted, interrupt_flag
from twostage.upcoming import Upcoming

_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")
PHASES = ("data", "defects", "forward", "losses", "backward", "optimiser")
"""What a step consists of, as a profiler sees it. The rest is the host's own."""
# Batches that are read from a disk before they are needed.
_BATCHES_AHEAD = 4
_LOG_EVERY_ON_GPU = 20


@dataclass(frozen=True)
class Moment:
    """A place in the schedule. All numbers count from 0; ``epoch`` runs on over both stages."""

    stage: int
    epoch: int
    step_in_epoch: int
    starts_stage: bool
    starts_epoch: bool


@dataclass(frozen=True)
class _Unread:
    """A step whose losses are still on the device."""

    step: int
    moment: Moment
    values: Tensor
    terms: tuple[str, ...]


@dataclass(frozen=True)
class StepReport:
    """What a step did."""

    step: int
    moment: Moment
    sigma: float
    loss: float
    terms: dict[str, float]


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
        compute: how steps are computed; the defaults if not given.

    Raises:
        ConfigError: the processes cannot share a batch evenly, or a step cannot be computed here in that way.
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
        compute: ComputeConfig | None = None,
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.compute = compute or ComputeConfig()
        model.lay_out(channels_last=self.compute.channels_last)
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
                f"batch_size: a batch has {self.batch_size} patches; accepted: a multiple of the {self.ranks.size} "
                "processes"
            )
        _require_computable(self.compute, self.device, self.ranks.size)
        self.bf16 = all(from_all(_takes_bf16(self.compute, self.device)))
        """Whether convolutions are in bfloat16: in all processes alike."""
        self.log_every = self.compute.log_every or (1 if self.device.type == "cpu" else _LOG_EVERY_ON_GPU)
        self.steps_in_epoch = store.patches_per_epoch // self.batch_size
        self.step = 0
        self._optimizer: Adam | None = None
        self._read_until = -1
        self._upcoming = self._new_upcoming()
        self._network: nn.Module | None = None
        self._steps: Steps | None = None
        self._sigma = torch.zeros(0)
        self._unread: list[_Unread] = []
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
        process is asked to end (SIGTERM). Losses are read every ``log_every`` steps, at the end of a stage and before a
        checkpoint; ``on_step`` is then called for each of the steps since.

        Raises:
            NonFiniteLossError: the loss or a weight became NaN or infinite; the last checkpoint is from before that.
            OutputError: a checkpoint cannot be written; those before it are intact.
            TrainingInterrupted: Ctrl-C or SIGTERM, in any of the processes; the finished steps were saved.
        """
        self.model.train()
        self._network = self._compiled(self._among_ranks())
        self._steps = None
        self._upcoming = self._new_upcoming()
        self._unread = []
        saved = self.step
        stopping = False
        with interrupt_flag() as interrupted:
            while self.step < self.total_steps and not stopping:
                due = checkpoints is not None and (self.step + 1) % checkpoint_every == 0
                reports: list[StepReport] = []
                with record_function("step"):
                    self._train_step()
                    if due or self._reads_after(self.step - 1):
                        reports, stopping = self._read(interrupted.is_set())
                self._tell(reports, on_step)
                if self.ranks.size == 1:
                    stopping = interrupted.is_set()
                if due and checkpoints is not None:
                    self.save(checkpoints)
                    saved = self.step
            self._tell(self._read(True)[0], on_step)
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

    def _compiled(self, network: nn.Module) -> nn.Module:
        if not self.compute.compile:
            return network
        return cast("nn.Module", torch.compile(network, dynamic=False))

    def _train_step(self) -> None:
        """Launch one step."""
        moment = self.moment_of(self.step)
        stage = self.stages[moment.stage]
        if self._steps is None or moment.starts_stage:
            self._steps = self._new_steps(moment)
        with record_function("data"):
            samples = self._upcoming.samples(moment.epoch, moment.step_in_epoch)
            normal = self.store.patches(samples, moment.epoch).to(self.device)
            self._read_ahead()
        inputs = normal
        if stage.defective:
            with record_function("defects"):
                polygons = self._upcoming.polygons(moment.epoch, moment.step_in_epoch)
                inputs, _ = self.defects.paste(normal, polygons)
        computed = self._steps(inputs, normal, self._sigma[moment.step_in_epoch])
        self.last_batch = inputs, computed.prediction, normal
        self._unread.append(_Unread(self.step, moment, computed.values, computed.terms))
        self.step += 1

    def _new_upcoming(self) -> Upcoming:
        return Upcoming(self.store, self.defects, self.batch_size, self.steps_in_epoch, self.ranks)

    def _new_steps(self, moment: Moment) -> Steps:
        assert self._network is not None
        stage = self.stages[moment.stage]
        if self._optimizer is None or moment.starts_stage:
            self._optimizer = make_adam(self.model, stage.learning_rate, self.compute)
        schedule = [sigma_at(stage.loss, step, self.steps_in_epoch) for step in range(self.steps_in_epoch)]
        # On the device once, so that no step has to send it.
        self._sigma = torch.tensor(schedule, dtype=torch.float32, device=self.device)
        parts = self._network, self.losses[moment.stage], self._optimizer
        if self.compute.cuda_graph:
            return GraphedSteps(*parts, bf16=self.bf16, graph=CudaGraph(self.device))
        return Steps(*parts, bf16=self.bf16)

    def _reads_after(self, step: int) -> bool:
        """Whether losses are read after a step, in all processes alike."""
        ended = step + 1 >= self.total_steps or self.moment_of(step + 1).starts_stage
        return ended or (step + 1) % self.log_every == 0

    def _read(self, stopping: bool) -> tuple[list[StepReport], bool]:
        """What the steps since the last reading did, over the whole batch; and whether any process wants to stop.

        The host waits for the device here, and here alone.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return [], stopping
        own = torch.stack([one.values for one in unread]).double().cpu()
        *totals, wanted = sums([*own.flatten().tolist(), float(stopping)])
        rows = torch.tensor(totals, dtype=torch.float64).view_as(own) / self.ranks.size
        reports = []
        for one, (loss, *terms) in zip(unread, rows.tolist(), strict=True):
            stage = self.stages[one.moment.stage]
            sigma = sigma_at(stage.loss, one.moment.step_in_epoch, self.steps_in_epoch)
            named = dict(zip(one.terms, terms, strict=True))
            reports.append(StepReport(one.step, one.moment, sigma, loss, named))
        return reports, wanted > 0

    def _tell(self, reports: Sequence[StepReport], on_step: Callable[[StepReport], None] | None) -> None:
        for report in reports:
            if not math.isfinite(report.loss):
                self.step = report.step
                raise NonFiniteLossError(self._describe_failure(report))
            if on_step is not None:
                on_step(report)

    def _read_ahead(self) -> None:
        last = min(self.step + _BATCHES_AHEAD, self.total_steps - 1)
        for step in range(max(self._read_until, self.step) + 1, last + 1):
            moment = self.moment_of(step)
            self.store.prepare(self._upcoming.samples(moment.epoch, moment.step_in_epoch), moment.epoch)
        self._read_until = last

    def _describe_failure(self, report: StepReport) -> str:
        parts = ", ".join(f"{name} {term}" for name, term in report.terms.items())
        batch = self._upcoming.batch(report.moment.epoch, report.moment.step_in_epoch)
        owners = self.store.image_of(batch).tolist()
        images = ", ".join(sorted({self.names[index] for index in owners}))
        return (
            f"the loss is {report.loss} ({parts}) at step {report.step}, sigma {report.sigma:g}; the batch came "
            f"from {images}. The last checkpoint is intact. Look at these images, or train anew with a smaller "
            "learning rate"
        )

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which :meth:`resume` continues bit for bit (on a CPU with as many threads).

        With several processes all have to call it, and the first writes. Any number of them can resume.

        Raises:
            NonFiniteLossError: a weight or a moment of the optimiser is NaN or infinite; nothing was written.
        """
        tensors = with_prefix("model.", self.model.state_dict())
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
        if not holds_checkpoints(folder):
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
        self.model.load_state_dict(under_prefix("model.", checkpoint.tensors))
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
        stage = self.stages[self.moment_of(self.step).stage]
        self._optimizer = make_adam(self.model, stage.learning_rate, self.compute)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in under_prefix("optimizer.", tensors).items():
            index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
        for parameter, moments in zip(self.model.parameters(), (state[index] for index in sorted(state)), strict=True):
            # The fused step pairs values by their place in memory: a moment needs the strides of its parameter.
            for field in ("exp_avg", "exp_avg_sq"):
                moments[field] = torch.empty_like(parameter).copy_(moments[field])
        layout = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": state, "param_groups": layout["param_groups"]})


def _require_computable(compute: ComputeConfig, device: torch.device, processes: int) -> None:
    if compute.cuda_graph and (device.type != "cuda" or processes > 1):
        raise ConfigError(
            f"compute.cuda_graph is True, the device is {device} and the processes are {processes}; accepted: one "
            "process on an NVIDIA GPU (device cuda)"
        )
    if compute.compile and processes > 1:
        raise ConfigError(f"compute.compile is True and the processes are {processes}; accepted: one process")


def _takes_bf16(compute: ComputeConfig, device: torch.device) -> bool:
    return gains_by_bf16(device) if compute.precision == "auto" else compute.precision == "bf16"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
