"""Maps of many images: in memory while they are few, then in a temporary file."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twostage.errors import OutputError
from twostage.files import ScratchFile

Maps = dict[str, Tensor]

_IN_MEMORY = 1 << 29  # bytes


@dataclass(frozen=True)
class _Written:
    names: tuple[str, ...]
    shape: tuple[int, int]
    begin: int


class KeptMaps:
    """The maps of images one by one, to go through as often as one likes.

    Args:
        in_memory: bytes; what comes after goes to a temporary file (see ``files.ScratchFile``).
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._left = in_memory
        self._images: list[Maps | _Written] = []
        self._file: ScratchFile | None = None

    def __len__(self) -> int:
        return len(self._images)

    def append(self, maps: Maps) -> None:
        """Keep the maps of the next image, float32 [H, W] each.

        Raises:
            OutputError: the temporary file cannot be written.
        """
        maps = {name: values.cpu() for name, values in maps.items()}
        self._left -= sum(values.nbytes for values in maps.values())
        self._images.append(maps if self._left >= 0 else self._write(maps))

    def __iter__(self) -> Iterator[Maps]:
        for kept in self._images:
            yield self._read(kept) if isinstance(kept, _Written) else kept

    def _write(self, maps: Maps) -> _Written:
        values = torch.stack(list(maps.values())).numpy()
        try:
            self._file = self._file or ScratchFile()
            begin = self._file.append(values)
        except OSError as error:
            raise OutputError(
                f"{error.strerror} while {values.nbytes} bytes of score maps were written to {tempfile.gettempdir()}; "
                "accepted: a folder with enough space, named by the environment variable TMPDIR"
            ) from error
        return _Written(tuple(maps), values.shape[1:], begin)

    def _read(self, written: _Written) -> Maps:
        assert self._file is not None
        height, width = written.shape
        size = height * width
        places = (written.begin + 4 * size * number for number in range(len(written.names)))
        values = (self._file.read(place, size, np.float32).copy().reshape(height, width) for place in places)
        return dict(zip(written.names, map(torch.from_numpy, values), strict=True))
