"""Where the work runs."""

import os

import torch
from torch import Tensor

from twostage.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is a GPU where there is one, else the CPU.

    Of the processes that `torchrun` started on this machine, each gets a GPU of its own (LOCAL_RANK).

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return own_gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:0, ...") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name!r}, and {torch.cuda.device_count()} CUDA devices are here; accepted: cpu")
    return device


def own_gpu() -> torch.device:
    """The first GPU, or with several processes on this machine the one that is this process's."""
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda") if rank is None else torch.device("cuda", int(rank) % torch.cuda.device_count())


def gains_by_bf16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 were measured to be faster on such a device: a processor with AVX512-BF16."""
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supports is not None and bool(supports())


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The same few values on ``device``, without waiting for it."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
