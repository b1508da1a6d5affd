"""What the benchmarks measure in processes of their own: peak memory, and a revision beside another."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.against import Worker, compare, serve

CASE = "aw_ssim scaling over image side 1x3x32x32"
# A contender that holds 40 MiB for a moment, and one that holds nothing.
ALLOCATE = """
import torch
from benchmarks.case import Case, Contender
from benchmarks.memory import measure_here
nothing = lambda *arguments: None
case = Case("x", "y", (1,), "cpu", nothing, list, nothing, nothing, nothing)
print(measure_here(case, Contender("a", "ours", lambda x: torch.ones(10 << 20).sum().item())))
print(measure_here(case, Contender("b", "ours", nothing)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel has no /proc/self/clear_refs")
def test_peak_memory_is_that_of_the_call() -> None:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    environment = {**os.environ, "PYTHONPATH": paths, "MALLOC_MMAP_THRESHOLD_": "65536"}
    child = subprocess.run(
        [sys.executable, "-c", ALLOCATE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    held, nothing = (int(line) / 2**20 for line in child.stdout.split())
    assert 39 <= held <= 44
    assert nothing <= 1


def test_worker_checks_before_it_times() -> None:
    asked: list[dict[str, str]] = [{"case": CASE}, {"sample": "native"}, {"sample": "native"}]
    questions = io.StringIO("".join(f"{json.dumps(question)}\n" for question in asked))
    answers = io.StringIO()
    serve("cpu", questions, answers)
    states, *seconds = (json.loads(line) for line in answers.getvalue().splitlines())
    if "native" not in states:
        pytest.skip("the extension is not built")
    assert states == {"native": "ready"}
    assert all(0 < one < 1 for one in seconds)


class Canned(Worker):
    """A worker with prepared answers."""

    def __init__(self, states: dict[str, str], seconds: float) -> None:
        self.states, self.seconds = states, seconds

    def prepare(self, case: str) -> dict[str, str]:
        return self.states

    def sample(self, contender: str) -> float:
        return self.seconds


def test_revisions_are_compared_where_both_are_right() -> None:
    old = Canned({"native": "ready", "triton": "ready"}, 2.0)
    new = Canned({"native": "ready", "triton": "its error is 7 times the allowed", "cuda": "ready"}, 1.0)
    found = dict(compare((old, new), CASE))
    times = found["native"]
    assert not isinstance(times, str)
    assert [timing.median for timing in times] == [2.0, 1.0]
    assert found["triton"] == "ready | its error is 7 times the allowed"
    assert found["cuda"] == "not there | ready"
