"""Images in files that hold their pixels as they are: memory-mapped, read a patch at a time, ahead of their use."""

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostage.data.order import Order
from twostage.data.packing import to_unit_range
from twostage.data.patches import Patches
from twostage.errors import DataError

IMAGE = np.dtype([("offset", "<i8"), ("file", "<i4"), ("height", "<i4"), ("width", "<i4"), ("itemsize", "<i4")])
"""Where an image [C, H, W] lies: its first byte, the number of the file, its size, and 1 for uint8 or 4 for float32."""

_OPEN_FILES = 128
_READERS = 4
# After so many bytes the pages read so far are given back. They stay in the system's cache, but the process does not
# grow with the set. A read maps its neighbours too: 64 KiB about it on Linux.
_BYTES_KEPT = 64 << 20
_MAPPED_AROUND = 64 << 10


class MappedImages(Sequence[Tensor]):
    """Images in files, each read when it is asked for. Threads may share it.

    All are of one type: uint8, or float32 in [0, 1] where one of them is.

    Args:
        files: by their numbers.
        table: [N], with the fields of :data:`IMAGE` and any others; may be memory-mapped itself.
        channels: of all images.
        dtype: of all images; by the table if not given.
    """

    def __init__(
        self, files: Sequence[Path], table: npt.NDArray[Any], channels: int, dtype: torch.dtype | None = None
    ) -> None:
        self.files = files
        self.table = table
        self.channels = channels
        self.dtype = dtype or (torch.uint8 if (table["itemsize"] == 1).all() else torch.float32)
        self._lock = threading.Lock()
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._bytes_read = 0

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "MappedImages": ...
    def __getitem__(self, index: int | slice) -> "Tensor | MappedImages":
        if isinstance(index, slice):
            return MappedImages(self.files, self.table[index], self.channels, self.dtype)
        image = torch.from_numpy(self._pixels(index).copy())
        return image if image.dtype == self.dtype else to_unit_range(image)

    @property
    def nbytes(self) -> int:
        """What all of them would take in memory."""
        pixels = self.table["height"].astype(np.int64) * self.table["width"]
        return int(pixels.sum()) * self.channels * self.dtype.itemsize

    def cut(self, index: int, top: int, left: int, size: int, into: npt.NDArray[Any]) -> None:
        """Copy a square cut of an image into ``into`` [C, size, size] of uint8, or of float32 in [0, 1]."""
        pixels = self._pixels(index)[:, top : top + size, left : left + size]
        if pixels.dtype == into.dtype:
            np.copyto(into, pixels)
        else:
            np.copyto(into, to_unit_range(torch.from_numpy(pixels.copy())).numpy())

    def _pixels(self, index: int) -> npt.NDArray[Any]:
        row = self.table[index]
        offset, file, height, width, itemsize = (int(row[name]) for name in IMAGE.names or ())
        count = self.channels * height * width
        dtype = np.uint8 if itemsize == 1 else np.float32
        try:
            flat = np.frombuffer(self._map(file, count * itemsize), dtype=dtype, count=count, offset=offset)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.files[file]} cannot be read at byte {offset}: {error}") from error
        return flat.reshape(self.channels, height, width)

    def _map(self, file: int, wanted: int) -> mmap.mmap:
        with self._lock:
            found = self._maps.get(file)
            if found is None:
                with self.files[file].open("rb") as stream:
                    found = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self._maps[file] = found
                if len(self._maps) > _OPEN_FILES:
                    # Not closed by name: somebody may be reading it. It closes when nobody does.
                    self._maps.popitem(last=False)
            self._maps.move_to_end(file)
            self._bytes_read += wanted + _MAPPED_AROUND
            if self._bytes_read > _BYTES_KEPT:
                self._bytes_read = 0
                for opened in self._maps.values():
                    opened.madvise(mmap.MADV_DONTNEED)
            return found


class MappedPatches(Patches):
    """Patches of :class:`MappedImages`, read by threads while those before them are trained on.

    Args:
        images: sides of at least ``patch_size``.
        patch_size: side of the square patches in pixels.
        seed: of the order and the positions.
        device: where patches are wanted; for a GPU they go through pinned memory.
        order: of the samples in an epoch; all of them shuffled if not given.
    """

    def __init__(
        self, images: MappedImages, patch_size: int, seed: int, device: torch.device, order: Order | None = None
    ) -> None:
        super().__init__(images.table["height"], images.table["width"], patch_size, seed, order)
        self.images = images
        self.device = device
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="twostage-read")
        self._waiting: dict[tuple[int, bytes], Future[Tensor]] = {}

    def prepare(self, samples: Tensor, epoch: int) -> None:
        key = (epoch, samples.numpy().tobytes())
        if key not in self._waiting:
            self._waiting[key] = self._pool.submit(self._read, samples, epoch)

    def patches(self, samples: Tensor, epoch: int) -> Tensor:
        future = self._waiting.pop((epoch, samples.numpy().tobytes()), None)
        read = self._read(samples, epoch) if future is None else future.result()
        return to_unit_range(read.to(self.device, non_blocking=True))

    def _read(self, samples: Tensor, epoch: int) -> Tensor:
        size = self.patch_size
        shape = (len(samples), self.images.channels, size, size)
        batch = torch.empty(shape, dtype=self.images.dtype, pin_memory=self.device.type == "cuda")
        for place, into in zip(self.places(samples, epoch), batch.numpy(), strict=True):
            self.images.cut(*place, size, into)
        return batch
