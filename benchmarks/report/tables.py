"""Rows, grouped and compared; how figures are written."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.rows import Row


@dataclass(frozen=True)
class Comparison:
    """The contenders of one case."""

    op: str
    task: str
    size: str
    timed: Sequence[Row]
    """Fastest first, ours and others."""
    absent: Sequence[Row]
    ours: Row
    """Of ours the one that the case names first: what a user gets who chooses nothing."""

    @property
    def name(self) -> str:
        return f"{self.op} {self.task}"

    @property
    def peers(self) -> list[Row]:
        return [row for row in self.timed if row["role"] == "peer"]

    @property
    def pixels(self) -> int:
        return math.prod(self.ours["shape"])

    def in_groups(self, *groups: str) -> bool:
        return bool(set(groups) & set(self.ours["groups"]))


def comparisons(rows: Iterable[Row]) -> list[Comparison]:
    """Every case that was timed, in the order of the rows."""
    cases: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if "size" in row:
            cases.setdefault((row["op"], row["task"], row["size"]), []).append(row)
    found = []
    for key, of_case in cases.items():
        timed = sorted((row for row in of_case if "seconds" in row), key=lambda row: float(row["seconds"]))
        ours = next((row for row in of_case if "seconds" in row and row["role"] == "ours"), None)
        if ours is not None:
            found.append(Comparison(*key, timed, [row for row in of_case if "absent" in row], ours))
    return found


def ceilings(rows: Iterable[Row]) -> Row:
    """The row of what the machine can do."""
    return next(row for row in rows if row["op"] == "ceilings")


def time(seconds: float) -> str:
    """With three digits that count, in the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{three_digits(seconds / size)} {unit}"
    raise AssertionError


def three_digits(value: float) -> str:
    """123, 12.3, 1.23, 0.012: never an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 3)}f}"


def origin(row: Row) -> str:
    """Where a run was made, in a sentence."""
    device = f"{row['device']}, {row['threads']} threads" if row["device_type"] == "cpu" else row["device"]
    driver = f", driver {row['driver']}" if row["driver"] else ""
    return f"{device}{driver}, torch {row['torch']}, Python {row['python']}"
