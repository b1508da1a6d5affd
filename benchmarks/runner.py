"""Checks, times and records cases."""

import dataclasses
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from benchmarks import environment
from benchmarks.case import Absent, Case, Contender, WrongResultError, check
from benchmarks.ceilings import Ceilings, measure_ceilings
from benchmarks.clock import Stopwatch, interleave, rotation
from benchmarks.memory import peak_memory
from benchmarks.rows import Row


class Runner:
    """Runs cases on one device.

    Args:
        device: cpu or cuda.
        seconds: to spend on each contender of a case, about.
    """

    def __init__(self, device: str, seconds: float) -> None:
        self.seconds = seconds
        self.origin = environment.describe(device)
        self.ceilings: Ceilings = measure_ceilings(device)
        self.refused: list[str] = []
        """Cases where an implementation of ours is wrong; they were not timed."""

    def ceiling_row(self) -> Row:
        return {**self.origin, "op": "ceilings", "contender": "machine", **dataclasses.asdict(self.ceilings)}

    def run(self, case: Case) -> Iterator[Row]:
        """One row for each contender: its times, or why there are none."""
        common = {**self.origin, "op": case.op, "task": case.task, "size": case.size, "shape": list(case.shape)}
        fit: list[tuple[Contender, float]] = []
        truth = case.truth(case.inputs(0))
        for contender in case.contenders():
            if isinstance(contender, Absent):
                yield {**common, "contender": contender.name, "role": "peer", "absent": contender.reason}
                continue
            try:
                fit.append((contender, check(case, contender, truth)))
            except WrongResultError as error:
                if contender.role == "ours":
                    self.refused.append(f"{case.name}: {error}")
                    return
                yield {**common, "contender": contender.name, "role": contender.role, "absent": str(error)}
        del truth
        gc.collect()
        yield from self._time(case, fit, common)

    def _time(self, case: Case, fit: list[tuple[Contender, float]], common: Row) -> Iterator[Row]:
        first = case.inputs(0)
        least = case.least(first)
        sets = rotation(case.device, least.bytes) if case.rotates else 1
        inputs = [first, *(case.inputs(seed) for seed in range(1, sets))]
        stopwatch = Stopwatch(case.device, inputs, case.shortest_sample)
        timings = interleave(stopwatch, {contender.name: contender.run for contender, _ in fit}, self.seconds)
        floor = self.ceilings.floor(*least)
        for contender, error in fit:
            timing = timings[contender.name]
            yield {
                **common,
                "contender": contender.name,
                "role": contender.role,
                "version": contender.version,
                "groups": sorted(case.groups),
                "seconds": timing.median / case.repeats,
                "p20": timing.p20 / case.repeats,
                "p80": timing.p80 / case.repeats,
                "samples": timing.samples,
                "error_of_allowed": error,
                "least_bytes": least.bytes,
                "least_multiply_adds": least.multiply_adds,
                "floor_seconds": floor,
                "peak_bytes": self._peak_memory(case, contender),
            }

    @staticmethod
    def _peak_memory(case: Case, contender: Contender) -> int | None:
        return peak_memory(case, contender) if "memory" in case.groups else None


def check_all(cases: Iterable[Case]) -> Iterator[tuple[Case, str, str | None]]:
    """Every implementation of ours on every case: (case, contender, what is wrong or None)."""
    for case in cases:
        truth: Any = case.truth(case.inputs(0))
        for contender in case.contenders():
            if isinstance(contender, Absent) or contender.role != "ours":
                continue
            try:
                check(case, contender, truth)
                yield case, contender.name, None
            except WrongResultError as error:
                yield case, contender.name, str(error)
            if case.device == "cuda":
                torch.cuda.empty_cache()
