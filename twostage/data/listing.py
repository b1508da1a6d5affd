"""Lists of very many files, in tens of bytes for each: names in one table, and objects when they are asked for."""

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

_Value_co = TypeVar("_Value_co", covariant=True)

_NAMES_AT_ONCE = 1 << 14


class Lazy(Sequence[_Value_co]):
    """Values that are made when they are asked for; equal to any sequence of equal values.

    Args:
        count: of the values.
        make: the value of a number from 0 to ``count`` - 1.
    """

    def __init__(self, count: int, make: Callable[[int], _Value_co]) -> None:
        self._numbers = range(count)
        self._make = make

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> _Value_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[_Value_co]: ...
    def __getitem__(self, index: int | slice) -> _Value_co | list[_Value_co]:
        chosen = self._numbers[index]
        return self._make(chosen) if isinstance(chosen, int) else [self._make(number) for number in chosen]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == its for own, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def files_in(folder: Path, names: Iterable[str]) -> Lazy[Path]:
    """Files of one folder, sorted by name."""
    table = _sorted_table(map(os.fsencode, names))
    return Lazy(len(table), lambda number: folder / os.fsdecode(bytes(table[number])))


def _sorted_table(names: Iterable[bytes]) -> npt.NDArray[Any]:
    """The order of UTF-8 bytes is that of the characters."""
    waiting = iter(names)
    parts = [np.array(part) for part in iter(lambda: list(islice(waiting, _NAMES_AT_ONCE)), [])]
    table = np.concatenate(parts) if parts else np.zeros(0, dtype="S1")
    table.sort()
    return table
