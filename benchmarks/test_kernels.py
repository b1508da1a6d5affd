"""The kernel cases under pytest-benchmark: ``pytest benchmarks --benchmark-only``."""

import warnings
from itertools import cycle
from typing import Any

import pytest
import torch

from benchmarks.case import Absent, Case, Contender, WrongResultError, check
from benchmarks.cases import all_cases
from benchmarks.clock import rotation

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark, of the [test] extra, is not installed")

# Peers warn as they like.
pytestmark = pytest.mark.filterwarnings("default")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _parameters() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return [
            pytest.param(case, contender, id=f"{case.name} {contender.name}")
            for case in all_cases(DEVICE)
            if "kernel" in case.groups
            for contender in case.contenders()
        ]


@pytest.mark.parametrize(("case", "contender"), _parameters())
def test_time(case: Case, contender: Contender | Absent, benchmark: Any) -> None:
    if isinstance(contender, Absent):
        pytest.skip(contender.reason)
    truth = case.truth(case.inputs(0))
    try:
        check(case, contender, truth)
    except WrongResultError as error:
        if contender.role == "ours":
            raise
        pytest.skip(str(error))
    sets = rotation(case.device, case.least(case.inputs(0)).bytes)
    inputs = cycle([case.inputs(seed) for seed in range(sets)])

    def call() -> None:
        contender.run(next(inputs))
        if case.device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = case.name
    benchmark.pedantic(call, rounds=15, warmup_rounds=2)
