"""Timing: contenders take turns, every sample is kept, inputs rotate."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# One sample lasts at least this many seconds, unless told otherwise: shorter calls are repeated within it.
SHORTEST_SAMPLE = 1e-3
ROUNDS = (5, 50)
_LARGEST_ROTATION = 32
_CACHE_WITHOUT_A_NAME = 64 << 20

Run = Callable[[Any], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    p20: float
    p80: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        tenths = statistics.quantiles(seconds, n=10, method="inclusive")
        return cls(statistics.median(seconds), tenths[1], tenths[7], len(seconds))


class Stopwatch:
    """Times calls on inputs that rotate."""

    def __init__(self, device: str, inputs: Sequence[Any], shortest_sample: float = SHORTEST_SAMPLE) -> None:
        self.device = device
        self.inputs = inputs
        self.shortest_sample = shortest_sample
        self._turn = 0

    def sample(self, run: Run, calls: int) -> float:
        """Seconds a call, over ``calls`` calls in a row."""
        batches = [self.inputs[(self._turn + call) % len(self.inputs)] for call in range(calls)]
        self._turn += calls
        timed = self._on_gpu if self.device == "cuda" else self._on_cpu
        return timed(run, batches) / calls

    def calls_in_a_sample(self, run: Run) -> int:
        """How many calls fill the shortest sample; warms up on the way."""
        self.sample(run, 1)
        once = self.sample(run, 1)
        if once > self.shortest_sample:
            return 1
        return max(1, round(self.shortest_sample / max(self.sample(run, 10), 1e-7)))

    @staticmethod
    def _on_cpu(run: Run, batches: Sequence[Any]) -> float:
        start = time.perf_counter()
        for batch in batches:
            run(batch)
        return time.perf_counter() - start

    @staticmethod
    def _on_gpu(run: Run, batches: Sequence[Any]) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for batch in batches:
            run(batch)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def interleave(stopwatch: Stopwatch, runs: Mapping[str, Run], seconds: float) -> dict[str, Timing]:
    """Time all of ``runs`` in turns, in an order that changes every round.

    Args:
        seconds: for each of them on average; at least 5 rounds are made, and at most 50.
    """
    calls = {name: stopwatch.calls_in_a_sample(run) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffler = list(runs), random.Random(0)
    end = time.perf_counter() + seconds * len(runs)
    for done in range(ROUNDS[1]):
        if done >= ROUNDS[0] and time.perf_counter() > end:
            break
        shuffler.shuffle(order)
        for name in order:
            samples[name].append(stopwatch.sample(runs[name], calls[name]))
    return {name: Timing.of(values) for name, values in samples.items()}


def rotation(device: str, bytes_at_once: int) -> int:
    """How many sets of inputs of ``bytes_at_once`` it takes to pass the last cache three times over, 2 to 32."""
    sets = -(-3 * _cache_bytes(device) // max(bytes_at_once, 1))
    return min(max(sets, 2), _LARGEST_ROTATION)


def _cache_bytes(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.get_device_properties().L2_cache_size)
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    kibibytes = [path.read_text().strip().removesuffix("K") for path in caches]
    return max((int(size) << 10 for size in kibibytes if size.isdigit()), default=_CACHE_WITHOUT_A_NAME)
