"""Several processes that train one model, as `torchrun` starts them: who is who, and what they tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F  # noqa: N812

# One process may cache millions of images while the others wait for it. A process that died is noticed by its launcher.
_LONGEST_WAIT = timedelta(days=2)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, values: Any) -> Any:
        """Every ``size``-th of a sequence or of a tensor's first dimension, this process's ones."""
        return values[self.rank :: self.size]


def current_ranks() -> Ranks:
    """Alone, where no group of processes was joined."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started with this one (environment: RANK, WORLD_SIZE, MASTER_ADDR, ...).

    Messages between CPUs go by gloo, those between GPUs by NCCL. Where a group was joined already, or the process was
    started alone, nothing is done.
    """
    if current_ranks().size > 1 or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield current_ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    store, rank, size = next(rendezvous("env://", timeout=_LONGEST_WAIT))
    # The launcher's store may outlive its processes. Those it starts again must not find the addresses of the dead.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"twostage/{attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if current_ranks().size > 1:
        dist.all_reduce(torch.zeros(1))


def from_first(value: _Value) -> _Value:
    """What the first process calls ``value``."""
    if current_ranks().size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def from_all(value: _Value) -> list[_Value]:
    """What each process calls ``value``, by ranks."""
    size = current_ranks().size
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def sums(values: list[float]) -> list[float]:
    """The sum of each value over all processes, in float64."""
    if current_ranks().size == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    found: list[float] = total.tolist()
    return found


class _SharedBatchNorm(torch.autograd.Function):
    """Normalise by the mean and the variance over the samples of all processes, as many in each.

    Every pass over the pixels is one of torch's fused kernels: those of evaluation, with the statistics of the batch.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Of bfloat16 values the statistics would be bfloat16.
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        own = torch.stack(torch.batch_norm_update_stats(exact, None, None, 0.0))
        of_all = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(of_all, own)
        means, variances = torch.stack(of_all).unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.eps, ctx.size = eps, size
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(values, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, variance = ctx.saved_tensors
        given, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # What flows through the statistics is a line in each value, with the sums over all processes.
        sums_of_all = torch.stack((of_weight, of_bias))
        dist.all_reduce(sums_of_all)
        count = values.numel() // values.shape[1] * ctx.size
        scale = weight * torch.rsqrt(variance + ctx.eps) / count
        slope, level = (sums_of_all * scale).unbind()
        through = F.batch_norm(values, mean, variance, slope, level, False, 0.0, ctx.eps)
        return given - through, of_weight, of_bias, None, None


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics are those of the whole batch, however many processes share it.

    Alone, or in evaluation, it is ``nn.BatchNorm2d``. Every process has to bring as many samples. torch's own
    SyncBatchNorm does the same for GPUs alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        size = current_ranks().size
        if size == 1 or not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        normal: tuple[Tensor, Tensor, Tensor] = _SharedBatchNorm.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, size
        )
        output, mean, variance = normal
        with torch.no_grad():
            count = input.numel() // input.shape[1] * size
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return output
