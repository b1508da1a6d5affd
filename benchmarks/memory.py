"""Peak memory of one call: on a GPU what torch's allocator saw, on a CPU what the kernel says of a child process."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import ROOT
from benchmarks.case import Case, Contender

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_memory(case: Case, contender: Contender) -> int:
    """Bytes that a second call adds to what its inputs and a first call have left in memory.

    Raises:
        RuntimeError: the child process failed.
    """
    if case.device == "cuda":
        return _on_gpu(case, contender)
    command = [sys.executable, "-m", "benchmarks", "memory", case.name, contender.name]
    # Blocks of 64 KiB and more go back to the system when freed, so that the peak is that of live tensors.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(64 << 10), "MALLOC_TRIM_THRESHOLD_": "0"}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited {child.returncode}: {child.stderr.strip()[-2000:]}")
    return int(child.stdout.split()[-1])


def measure_here(case: Case, contender: Contender) -> int:
    """:func:`peak_memory` of a CPU case in this process, which does nothing else. Linux only."""
    inputs = case.inputs(0)
    contender.run(inputs)
    before = _kibibytes("VmRSS")
    _RESET.write_text("5")  # the peak starts again from what is resident now
    contender.run(inputs)
    return (_kibibytes("VmHWM") - before) << 10


def _kibibytes(field: str) -> int:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


def _on_gpu(case: Case, contender: Contender) -> int:
    inputs = case.inputs(0)
    contender.run(inputs)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contender.run(inputs)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
