"""Files that are either whole or not there, also after a crash; and files that nobody will miss."""

import os
import secrets
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twostage.errors import OutputError


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replace the content of ``path``: a reader, or a crash at any moment, sees the old or the new content whole.

    The data is on the disk when this returns.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    # The name is cut, because the file system limits its length in bytes and the suffix needs room.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            write_durable(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def write_text_atomic(path: Path, text: str) -> None:
    """``write_bytes_atomic`` of the text in UTF-8.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    write_bytes_atomic(path, text.encode())


def write_durable(path: Path, data: bytes) -> None:
    """Create ``path``, which must not exist, and wait until its content (not yet its name) is on the disk.

    Raises:
        OSError: the file exists or cannot be written.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ScratchFile:
    """Arrays that memory does not hold, in a temporary file that is gone when nobody refers to it any more.

    It lies where the standard library's ``tempfile`` puts such files (environment: TMPDIR).

    Raises:
        OSError: it cannot be made; so :meth:`append`, where it cannot be written.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="twostage-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def append(self, values: npt.NDArray[Any]) -> int:
        """Returns the byte where the values begin."""
        begin = self._file.seek(0, os.SEEK_END)
        self._file.write(values.data)
        self._file.flush()
        return begin

    def read(self, begin: int, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """So many values from a byte on."""
        return np.frombuffer(os.pread(self._file.fileno(), count * np.dtype(dtype).itemsize, begin), dtype=dtype)
