"""The float32 multiply-add rate of a GPU, by a kernel that does nothing else. Imports triton."""

import torch
import triton
from torch import Tensor
from triton import language as tl

from benchmarks.clock import Stopwatch

LANES = 1024
"""Independent chains in a program: eight for each of 128 threads, enough to hide an instruction's latency."""
STEPS = 64
"""Multiply-adds of a chain in one turn of the loop."""


@triton.jit  # type: ignore[untyped-decorator]
def multiply_add_chains(output, turns, LANES: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """output[i] = value of chain i after turns * STEPS times value = value * factor + summand."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    value = lane.to(tl.float32)
    factor = tl.full((LANES,), 0.5, tl.float32)
    summand = tl.full((LANES,), 1.0, tl.float32)
    for _ in range(turns):
        for _ in tl.static_range(STEPS):
            value = tl.fma(value, factor, summand)
    tl.store(output + lane, value)


def run_chains(output: Tensor, turns: int) -> None:
    """Fill ``output`` (float32, a multiple of :data:`LANES` long)."""
    multiply_add_chains[(len(output) // LANES,)](output, turns, LANES, STEPS, num_warps=4, enable_fp_fusion=True)


def gpu_rate(turns: int = 256) -> float:
    """Multiply-adds per second, the fastest of several runs."""
    programs = 64 * torch.cuda.get_device_properties().multi_processor_count
    output = torch.empty(programs * LANES, device="cuda")
    stopwatch = Stopwatch("cuda", [None])
    stopwatch.sample(lambda _: run_chains(output, turns), 2)
    seconds = min(stopwatch.sample(lambda _: run_chains(output, turns), 1) for _ in range(10))
    return len(output) * turns * STEPS / seconds
