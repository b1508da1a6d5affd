"""What a row says about where it comes from."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks import ROOT


def describe(device: str) -> dict[str, Any]:
    """Device, driver, versions, commit, whether the tree differs from it, what else runs, and a name for the run."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    # Rows are added while the benchmarks run; they do not change what is measured.
    changes = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "run": f"{time} {commit or 'no commit'}{'+' if changes else ''}",
        "device": device_name(device),
        "device_type": device,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "driver": _driver() if device == "cuda" else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": installed_version("triton"),
        "numpy": numpy.__version__,
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
    }


def device_name(device: str) -> str:
    """As its maker calls it; a processor with its family and model, as a virtual one's name says little else."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    return processor_name(information.read_text() if information.exists() else "")


def processor_name(information: str) -> str:
    """What Linux's ``/proc/cpuinfo`` calls the processor; what Python calls it, where that says nothing."""
    said = [
        re.search(rf"^{name}\s*: (.+)$", information, re.MULTILINE) for name in ("model name", "cpu family", "model")
    ]
    if said[0] is None:
        return platform.processor() or platform.machine()
    name, *numbers = (found[1].strip() for found in said if found)
    return f"{name} (family {numbers[0]}, model {numbers[1]})" if len(numbers) == 2 else name


def slug(name: str) -> str:
    """A device's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def installed_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git answers; None outside a checkout."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _driver() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return None
    return answer.stdout.split("\n")[0].strip() or None
