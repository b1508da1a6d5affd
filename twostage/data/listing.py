"""Lists of very many files, in tens of bytes for each: names in one piece of memory, objects when asked for."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

_Value_co = TypeVar("_Value_co", covariant=True)


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
    """Files by their names from one folder on, in the order of their paths."""
    # The order of UTF-8 bytes is that of the characters; with 0 for a slash, "a/b" comes before "a-b", as paths do.
    ordered = sorted(os.fsencode(name).replace(b"/", b"\0") for name in names)
    ends = np.cumsum(np.fromiter(map(len, ordered), dtype=np.int64, count=len(ordered)))
    text = b"".join(ordered)

    def file(number: int) -> Path:
        name = text[ends[number - 1] if number else 0 : ends[number]]
        return folder / os.fsdecode(name.replace(b"\0", b"/"))

    return Lazy(len(ends), file)
