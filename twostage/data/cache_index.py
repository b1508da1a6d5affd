"""What a cache holds: rows in a few files, found by a hash of the image's path, without reading them all."""

import io
import mmap
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twostage.data.mapped import IMAGE
from twostage.data.prepared import MOST_FEATURES
from twostage.files import sync_folder, write_bytes_atomic

ROW = np.dtype(
    [
        ("path", "<u8"),  # hash of the path
        ("content", "S16"),  # hash of the file
        ("size", "<i8"),
        ("changed", "<i8"),  # time of the last change in nanoseconds
        ("digest", "<u8"),  # of the pixels
        ("token", "S8"),  # of the file with the pixels
        ("offset", "<i8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("itemsize", "<i4"),
        ("features", "<f4", (MOST_FEATURES,)),
    ]
)

Rows = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]
_Positions = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 1 << 15


class CacheIndex:
    """The rows of a cache as they are now.

    Args:
        folder: of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = sorted(folder.glob("rows-*.npy"))
        self._pieces: list[Rows] = [np.load(file, mmap_mode="r", allow_pickle=False) for file in self.files]
        lengths = np.array([0, *(len(piece) for piece in self._pieces)], dtype=np.int64)
        self._first = np.cumsum(lengths)
        paths = [_paths_of(piece) for piece in self._pieces]
        every = paths.pop() if len(paths) == 1 else np.concatenate(paths or [np.zeros(0, dtype=np.uint64)])
        # The last row of a path counts: sorted stably, it stands last among its equals.
        order = np.argsort(every, kind="stable")
        every = every[order]
        last = np.ones(len(order), dtype=bool)
        np.not_equal(every[1:], every[:-1], out=last[:-1])
        self._positions: _Positions = order[last]
        self._paths: Words = every[last]

    @property
    def next_number(self) -> int:
        """For the next file of rows."""
        return 1 + max((int(file.name.split("-")[1]) for file in self.files), default=0)

    def find(self, paths: Words) -> _Positions:
        """The position of each path's row, -1 where there is none: uint64 [N] -> int64 [N]."""
        if len(self._paths) == 0:
            return np.full(len(paths), -1, dtype=np.int64)
        place = np.searchsorted(self._paths, paths).clip(max=len(self._paths) - 1)
        return np.where(self._paths[place] == paths, self._positions[place], -1)

    def take(self, positions: _Positions) -> Rows:
        """The rows at the given positions, all of them found."""
        rows = np.empty(len(positions), dtype=ROW)
        piece = np.searchsorted(self._first, positions, side="right") - 1
        for number in np.unique(piece).tolist():
            chosen = piece == number
            rows[chosen] = self._pieces[number][positions[chosen] - self._first[number]]
            if len(rows) >= _ROWS_AT_ONCE:
                _give_back(self._pieces[number])
        return rows

    def compact(self) -> None:
        """Put all rows that count into one file."""
        if len(self._pieces) < 2:
            return
        target = self.folder / rows_name(self.next_number, "whole")
        temporary = target.with_name(f".{target.name}.tmp")
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=ROW, shape=(len(self._positions),))
        for first in range(0, len(whole), _ROWS_AT_ONCE):
            whole[first : first + _ROWS_AT_ONCE] = self.take(self._positions[first : first + _ROWS_AT_ONCE])
            _give_back(whole)
        whole.flush()
        temporary.replace(target)
        sync_folder(self.folder)
        for file in self.files:
            file.unlink(missing_ok=True)

    def view(self, positions: _Positions) -> "View":
        """The images at the given positions, all of them found, as arrays on the disk."""
        tokens: dict[bytes, int] = {}
        table = _on_disk(self.folder, IMAGE, (len(positions),))
        features = _on_disk(self.folder, np.dtype("<f4"), (len(positions), MOST_FEATURES))
        digests = _on_disk(self.folder, np.dtype("<u8"), (len(positions),))
        for first in range(0, len(positions), _ROWS_AT_ONCE):
            rows = self.take(positions[first : first + _ROWS_AT_ONCE])
            part = slice(first, first + len(rows))
            found, inverse = np.unique(rows["token"], return_inverse=True)
            numbers = np.array([tokens.setdefault(token, len(tokens)) for token in found.tolist()])
            table["file"][part] = numbers[inverse]
            for name in ("offset", "height", "width", "itemsize"):
                table[name][part] = rows[name]
            features[part], digests[part] = rows["features"], rows["digest"]
            _give_back(table, features, digests)
        files = [self.folder / pixels_name(token.decode()) for token in tokens]
        return View(files, table, features, digests)


class View:
    """Some images of a cache in an order of one's own."""

    def __init__(self, files: list[Path], table: Rows, features: npt.NDArray[np.float32], digests: Words) -> None:
        self.files = files
        self.table = table
        self.features = features
        self.digests = digests


def write_rows(folder: Path, number: int, token: str, rows: Rows) -> None:
    """Add rows to a cache; they are there as a whole, or not.

    Raises:
        OutputError: they cannot be written.
    """
    data = io.BytesIO()
    np.save(data, rows, allow_pickle=False)
    write_bytes_atomic(folder / rows_name(number, token), data.getvalue())


def rows_name(number: int, token: str) -> str:
    return f"rows-{number:09d}-{token}.npy"


def pixels_name(token: str) -> str:
    return f"pixels-{token}.raw"


def _on_disk(folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array in a file that has no name any more: it vanishes with the array, and takes no memory that is needed."""
    if shape[0] == 0:
        return np.zeros(shape, dtype=dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _paths_of(piece: Rows) -> Words:
    paths = np.empty(len(piece), dtype=np.uint64)
    for first in range(0, len(piece), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        paths[part] = piece["path"][part]
        _give_back(piece)
    return paths


def _give_back(*arrays: npt.NDArray[Any]) -> None:
    """Lets go of the pages of mapped arrays: what was read or written stays in the system's cache and in the file."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
