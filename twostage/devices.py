"""Where the work runs."""

import torch

from twostage.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:0, ...") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name!r}, and {torch.cuda.device_count()} CUDA devices are here; accepted: cpu")
    return device
