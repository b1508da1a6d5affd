"""One process at a time in a folder."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCKS_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, on_busy: Callable[[], None]) -> Iterator[bool]:
    """Hold the folder's lock, which dies with its process. False where the file system has no locks.

    Args:
        on_busy: is called once where another process holds the lock; where it returns, the lock is waited for.

    Raises:
        OSError: the folder cannot be written.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        held = _acquire(descriptor, on_busy)
        try:
            yield held
        finally:
            if held:
                # By name: a child forked meanwhile has the descriptor too, and closing ours would not do.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, on_busy: Callable[[], None]) -> bool:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_busy()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise
        return False
    return True
