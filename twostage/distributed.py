"""Several processes that work on one model, as `torchrun` starts them: who is who, and what they tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

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


def launch() -> str:
    """Which start of `torchrun` this process belongs to, the same through all its restarts; empty without one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    # Where nobody named it, the launcher is on this machine and lives as long as the launch.
    return f"none {os.getppid()}" if name == "none" else name


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
