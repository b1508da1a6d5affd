"""How images are cut into strips, each streamed from top to bottom by threads that own a column each."""

from functools import lru_cache
from math import ceil
from typing import NamedTuple

# Threads of a program, where strips are not wider.
_THREADS = 128
# As many programs a multiprocessor needs to be busy.
_BUSY = 3
_LEAST_ROWS = 16
_MOST_SEGMENTS = 64


class Plan(NamedTuple):
    group: int  # strips of a program
    columns: int  # of a strip, with those that it only reads
    across: int  # strips beside each other
    rows: int  # of a strip
    segments: int  # strips below each other
    first_row: int  # the first that a strip reads, from the first that it owns
    stretches: int
    stretch: int  # rows between two moves of the shift

    @property
    def strips_of_plane(self) -> int:
        return self.across * self.segments


def _strips_across(width: int, columns: int, reach: int) -> int:
    """Neighbours share the columns that both must read."""
    return 1 + max(ceil((width - columns) / (columns - 2 * reach)), 0)


def _plan(group: int, columns: int, rows: int, height: int, width: int, half: int, gradients: bool, same: bool) -> Plan:
    reach, stretch = (2 * half if gradients else half), max(2 * half, 1)
    segments = ceil(height / rows)
    # A shift is to be taken from each strip's first row of pixels, or of padding.
    first_row = 0 if segments == 1 and not same else -ceil(reach / stretch) * stretch
    last_row = min(rows, height) + reach + (1 if gradients else 0)
    stretches = ceil((last_row - first_row) / stretch)
    return Plan(group, columns, _strips_across(width, columns, reach), rows, segments, first_row, stretches, stretch)


@lru_cache(maxsize=1024)
def fastest_plan(
    planes: int, height: int, width: int, half: int, gradients: bool, same: bool, masked: bool, multiprocessors: int
) -> Plan:
    """The plan that keeps ``multiprocessors`` busy for the shortest time."""
    reach = 2 * half if gradients else half
    width += 2 * half if same and masked else 0
    plans: list[tuple[int, Plan]] = []
    for columns in (32, 64, 128, 256):
        if columns < 2 * reach + 8:
            continue
        group = max(_THREADS // columns, 1)
        for segments in range(1, min(ceil(height / _LEAST_ROWS), _MOST_SEGMENTS) + 1):
            plan = _plan(group, columns, ceil(height / segments), height, width, half, gradients, same)
            programs = ceil(planes * plan.strips_of_plane / group)
            load = ceil(programs / multiprocessors) * (group * columns // _THREADS)
            plans.append((max(load, _BUSY) * plan.stretches * plan.stretch, plan))
    return min(plans)[1]


def interpreted_plan(
    planes: int, height: int, width: int, half: int, gradients: bool, same: bool, masked: bool
) -> Plan:
    """Small strips, as many of them in one program as there are: the interpreter's time goes by instructions."""
    reach = 2 * half if gradients else half
    width += 2 * half if same and masked else 0
    columns = 32
    while columns < 2 * reach + 8:
        columns *= 2
    plan = _plan(1, columns, min(32, height), height, width, half, gradients, same)
    group = 1
    while group < min(planes * plan.strips_of_plane, 64):
        group *= 2
    return plan._replace(group=group)
