"""What a benchmark case declares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from benchmarks.clock import SHORTEST_SAMPLE

Role = Literal["ours", "peer", "yardstick"]
"""A yardstick does other work, shown beside for its time alone (a plain copy, say); its result is not checked."""


class Least(NamedTuple):
    """The least that any implementation must do; 0 where nothing is claimed."""

    bytes: int
    """Every input read once and every output written once."""
    multiply_adds: int


@dataclass(frozen=True)
class Contender:
    """One way of doing the work of a case."""

    name: str
    role: Role
    run: Callable[[Any], Any]
    """Takes the case's inputs and returns its result."""
    version: str | None = None


@dataclass(frozen=True)
class Absent:
    """A peer that cannot be compared with here."""

    name: str
    reason: str


@dataclass(frozen=True)
class Case:
    """Work that is timed: what goes in, what is right, the least it takes, and who does it."""

    op: str
    task: str
    shape: tuple[int, ...]
    device: str
    """Type of torch.device: cpu or cuda."""
    inputs: Callable[[int], Any]
    """Makes fresh inputs from a seed."""
    contenders: Callable[[], Sequence[Contender | Absent]]
    """Imports the peers, so not before it is called."""
    truth: Callable[[Any], Any]
    """The result in float64, by the reference."""
    judge: Callable[[Any, Any, Role], float]
    """(result, truth, role) -> the largest error in units of what is allowed: up to 1 is right, NaN is wrong."""
    least: Callable[[Any], Least]
    groups: frozenset[str] = frozenset()
    """``kernel`` (also under pytest-benchmark), ``memory`` (peak memory is measured), ``scaling``, ``end to end``."""
    rotates: bool = True
    """Whether to change inputs from call to call, so that they come from memory and not from a cache."""
    repeats: int = 1
    """How often one call does the work; times are divided by it."""
    shortest_sample: float = SHORTEST_SAMPLE
    """Seconds that calls go on, back to back, before a contender hands over to the next."""

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def name(self) -> str:
        return f"{self.op} {self.task} {self.size}"


class WrongResultError(Exception):
    """A contender's result is not that of the reference: it must not be timed."""


def check(case: Case, contender: Contender, truth: Any) -> float:
    """The error of ``contender`` in units of what is allowed, on the inputs of seed 0.

    Raises:
        WrongResultError: it is above 1, or NaN.
    """
    if contender.role == "yardstick":
        return 0.0
    error = case.judge(contender.run(case.inputs(0)), truth, contender.role)
    if not error <= 1:
        raise WrongResultError(f"{contender.name} computes something else: its error is {error:.3g} times the allowed")
    return error
