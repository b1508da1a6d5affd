"""A cache on the disk: every image decoded, resized and in one colour format, one behind the other in a few files.

A folder holds ``pixels-<token>.raw`` (images, appended) and ``rows-<number>-<token>.npy`` (which file each image is of,
and where its pixels lie; later rows replace earlier ones). Rows are written after their pixels are on the disk, under a
name that appears at once: a build that is killed has lost what came after its last rows, and the next goes on there.
Processes build one after another. Should locks fail them, each writes files of its own and none harms another.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from twostage.data.cache_index import ROW, CacheIndex, Rows, pixels_name, write_rows
from twostage.data.mapped import MappedImages
from twostage.data.prepared import Prepared, PreparedImage, Preparer
from twostage.data.samples import Finding, finding_of
from twostage.errors import DataError, OutputError
from twostage.locking import locked

_AT_ONCE = 64
_STATS_AT_ONCE = 1024
_COMMIT_IMAGES = 2048
_COMMIT_SECONDS = 15.0
_LARGEST_FILE = 1 << 30
_PATH_STATS = ("path", "size", "changed")


class ImageCache:
    """The cache of one way to prepare images.

    Args:
        folder: of this way and no other; made if missing. Deleting it costs time and nothing else.
        preparer: how a file becomes what is kept.
        note: is told why it takes long.
        progress: is told the number of images prepared, and of all that have to be.
    """

    def __init__(
        self,
        folder: Path,
        preparer: Preparer,
        *,
        note: Callable[[str], None] = lambda message: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.folder = folder
        self.preparer = preparer
        self.note = note
        self.progress = progress

    def open(self, paths: Sequence[Path]) -> tuple[Prepared | None, list[Finding]]:
        """The given images, once those that are new or were changed have been added.

        A file counts as unchanged while its size and its time of change are; where one differs, its content decides.

        Returns:
            The images in the order of ``paths`` (None where one of them cannot be read), and what is wrong.

        Raises:
            OutputError: the cache cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder, lambda: self.note(f"another process is writing {self.folder}; waiting for it")):
                return self._open(paths)
        except OSError as error:
            raise OutputError(f"the cache {self.folder} cannot be written: {error}") from error

    def _open(self, paths: Sequence[Path]) -> tuple[Prepared | None, list[Finding]]:
        stats, findings = _stat_all(paths)
        index = CacheIndex(self.folder)
        known = index.find(stats["path"])
        stale = _stale(index, known, stats)
        if len(stale) and not findings:
            findings = self._add(paths, stats, stale, index)
            index = CacheIndex(self.folder)
            index.compact()
            known = index.find(stats["path"])
        if findings:
            return None, findings
        view = index.view(known)
        images = MappedImages(view.files, view.table, self.preparer.channels)
        return Prepared(images, view.features[:, : 4 * self.preparer.channels], view.digests), []

    def _add(
        self, paths: Sequence[Path], stats: Rows, stale: npt.NDArray[np.int64], index: CacheIndex
    ) -> list[Finding]:
        findings: list[Finding] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool, _Writer(self.folder, index.next_number) as writer:
            for first in range(0, len(stale), _AT_ONCE):
                batch = stale[first : first + _AT_ONCE]
                known = index.find(stats["path"][batch])
                rows = [index.take(known[i : i + 1])[0] if known[i] >= 0 else None for i in range(len(batch))]
                jobs = pool.map(self._prepare, [paths[number] for number in batch.tolist()], rows)
                for number, row, (content, outcome) in zip(batch.tolist(), rows, jobs, strict=True):
                    if isinstance(outcome, Finding):
                        findings.append(outcome)
                    elif outcome is None:
                        writer.keep(stats[number], row)
                    else:
                        writer.add(stats[number], content, outcome)
                self.progress(first + len(batch), len(stale))
        return findings

    def _prepare(self, path: Path, row: Any) -> tuple[bytes, PreparedImage | Finding | None]:
        """The hash of a file, and what is to be kept of it: None where that is known already."""
        try:
            content = _safe(hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
            if row is not None and row["content"] == content:
                return content, None
            return content, self.preparer(path)
        except OSError as error:
            return b"", Finding(path, f"cannot be read ({error.strerror}); accepted: a readable file", fatal=True)
        except DataError as error:
            return b"", finding_of(path, error)


class _Writer:
    """Appends images to a cache, and from time to time the rows of those that are on the disk."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number
        self._pending: list[Any] = []
        self._last_commit = time.monotonic()
        self._token = ""
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Also after Ctrl-C: what is finished is kept.
        try:
            self._commit()
        finally:
            if self._file is not None:
                self._file.close()

    def add(self, stats: Any, content: bytes, image: PreparedImage) -> None:
        """An image that is new, or whose file has other pixels than before."""
        if self._file is None or self._file.tell() > _LARGEST_FILE:
            self._commit()
            if self._file is not None:
                self._file.close()
            self._token = secrets.token_hex(4)
            self._file = (self.folder / pixels_name(self._token)).open("xb")
        # Every image begins at a multiple of 4, as float32 wants it.
        self._file.write(b"\0" * (-self._file.tell() % 4))
        row = np.zeros((), dtype=ROW)
        for name in _PATH_STATS:
            row[name] = stats[name]
        row["content"], row["digest"] = content, image.digest
        row["token"], row["offset"] = self._token.encode(), self._file.tell()
        row["height"], row["width"] = image.pixels.shape[1:]
        row["itemsize"] = image.pixels.itemsize
        row["features"][: len(image.features)] = image.features
        self._file.write(image.pixels.tobytes())
        self._append(row)

    def keep(self, stats: Any, row: Any) -> None:
        """An image whose file was touched and has the content it had."""
        kept = row.copy()
        for name in _PATH_STATS:
            kept[name] = stats[name]
        self._append(kept)

    def _append(self, row: Any) -> None:
        self._pending.append(row)
        late = time.monotonic() - self._last_commit > _COMMIT_SECONDS
        if late or len(self._pending) >= _COMMIT_IMAGES:
            self._commit()

    def _commit(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._pending:
            write_rows(self.folder, self.number, self._token or secrets.token_hex(4), np.array(self._pending, ROW))
            self.number += 1
            self._pending = []
        self._last_commit = time.monotonic()


def _safe(digest: bytes) -> bytes:
    """numpy drops zeros at the end of a string."""
    return digest[:-1] + bytes([digest[-1] | 1])


def _stat_all(paths: Sequence[Path]) -> tuple[Rows, list[Finding]]:
    """The hash of each path, and the size and the time of change of its file."""
    stats = np.zeros(len(paths), dtype=[("path", "<u8"), ("size", "<i8"), ("changed", "<i8")])

    def stat_some(first: int) -> list[Finding]:
        findings = []
        for number, path in enumerate(paths[first : first + _STATS_AT_ONCE], start=first):
            found = _stat(path)
            if isinstance(found, OSError):
                problem = f"cannot be read ({found.strerror}); accepted: a readable file"
                findings.append(Finding(path, problem, fatal=True))
            else:
                stats[number] = found
        return findings

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(stat_some, range(0, len(paths), _STATS_AT_ONCE))
        findings = [finding for part in parts for finding in part]
    _require_apart(stats["path"])
    return stats, findings


def _stat(path: Path) -> tuple[int, int, int] | OSError:
    try:
        found = path.stat()
    except OSError as error:
        return error
    name = hashlib.blake2b(os.fsencode(os.path.abspath(path)), digest_size=8).digest()  # noqa: PTH100 (links stay)
    return int.from_bytes(name, "little"), found.st_size, found.st_mtime_ns


def _require_apart(hashes: npt.NDArray[np.uint64]) -> None:
    """Among a million paths, two of one hash come once in 40 million data sets."""
    known = np.sort(hashes[hashes != 0])
    if (known[1:] == known[:-1]).any():
        raise DataError(
            "two images have one path, or paths of one hash; accepted: every file once (rename one of them)"
        )


def _stale(index: CacheIndex, known: npt.NDArray[np.int64], stats: Rows) -> npt.NDArray[np.int64]:
    """Numbers of the images without a row, or whose file has another size or time of change than its row says."""
    stale = known < 0
    for first in range(0, len(known), 1 << 15):
        part = np.flatnonzero(~stale[first : first + (1 << 15)]) + first
        rows = index.take(known[part])
        differs = (rows["size"] != stats["size"][part]) | (rows["changed"] != stats["changed"][part])
        stale[part[differs]] = True
    return np.flatnonzero(stale)
