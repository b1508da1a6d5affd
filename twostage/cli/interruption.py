"""Ctrl-C: what a person is told, and how to go on."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A command was stopped by Ctrl-C; the message says what was kept."""


@contextmanager
def stopping(what_next: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into a message.

    Raises:
        Stopped: Ctrl-C came; ``what_next`` says how to go on.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Stopped(f"{interrupt or 'stopped'}. {what_next()}") from interrupt


def command_line(*words: object) -> str:
    """Words as they are to be typed in a shell."""
    return shlex.join(("twostage", *map(str, words)))
