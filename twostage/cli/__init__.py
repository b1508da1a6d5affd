"""The command line."""

import sys
from collections.abc import Sequence

from twostage.cli.interruption import Stopped
from twostage.cli.parsing import parse
from twostage.cli.terminal import print_error
from twostage.errors import TwostageError

__all__ = ["main"]

_BAD_INPUT = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    0: done. 1: done, and something was found wrong (``check-data``, ``predict``). 2: the input or a setting is not
    accepted, or a file cannot be read or written; one message on stderr says so. 130: stopped by Ctrl-C.

    Args:
        arguments: the words after ``twostage``; those of this process if not given.
    """
    try:
        return parse(sys.argv[1:] if arguments is None else arguments).execute()
    except (TwostageError, OSError) as error:
        print_error(str(error))
        return _BAD_INPUT
    except Stopped as stopped:
        print_error(str(stopped))
        return _INTERRUPTED
    except KeyboardInterrupt:
        print_error("stopped")
        return _INTERRUPTED
