"""Ctrl-C and SIGTERM during a training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; where checkpoints are kept, the last one holds every finished step."""


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the flag, so that a step is never cut in half; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
