"""What the machine can do at most: the ceilings that a case's floor is reckoned from."""

from dataclasses import dataclass

import torch

from benchmarks.clock import Run, Stopwatch
from benchmarks.processor import processor_rate

_COPIED_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
_MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device, in each case the fastest of several runs."""

    bytes_per_second: float
    """A large copy, counting bytes read and bytes written."""
    multiply_adds_per_second: float
    """In float32, without tensor cores."""
    bfloat16_multiply_adds_per_second: float | None = None
    """By the tensor cores of a GPU."""

    def floor(self, least_bytes: int, multiply_adds: int) -> float:
        """The seconds below which no implementation gets; 0 where nothing is claimed."""
        return max(least_bytes / self.bytes_per_second, multiply_adds / self.multiply_adds_per_second)


def measure_ceilings(device: str) -> Ceilings:
    if device == "cuda":
        from benchmarks.multiply_add import gpu_rate

        return Ceilings(_copy_rate(device), gpu_rate(), _matrix_rate(device, torch.bfloat16))
    # Without a compiler by a matrix product, which on some processors gets less than half as far.
    return Ceilings(_copy_rate(device), processor_rate() or _matrix_rate(device, torch.float32))


def _copy_rate(device: str) -> float:
    elements = _COPIED_BYTES[device] // 4
    source, copy = torch.rand(elements, device=device), torch.empty(elements, device=device)
    return 2 * _COPIED_BYTES[device] / _fastest(device, lambda _: copy.copy_(source))


def _matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Of a square matrix product."""
    side = _MATRIX_SIDE[device]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    return float(side**3 / _fastest(device, lambda _: torch.mm(left, right, out=product)))


def _fastest(device: str, run: Run) -> float:
    stopwatch = Stopwatch(device, [None])
    return min(stopwatch.sample(run, 1) for _ in range(30))
