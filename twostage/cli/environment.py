"""What a result was made with."""

import importlib.metadata
import platform
import resource
from pathlib import Path

import numpy
import torch


def versions(device: torch.device) -> dict[str, str]:
    """Names and versions of what computes on ``device``."""
    try:
        own = importlib.metadata.version("twostage")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed (run from its source folder)"
    return {
        "twostage": own,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "device": _describe(device),
    }


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most memory this process has held so far, in bytes: of the machine, and of the GPU where one computes."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = {"host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["device_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
