"""The compiled extension, or the reason why it is not here."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from twostage_kernels.native.openmp import team_starter

extension: ModuleType | None = None
unavailable: str | None = None
try:
    extension = import_module("twostage_kernels._extension")
except ModuleNotFoundError:
    unavailable = "this installation was built without its C++ extension"
except ImportError as error:
    unavailable = f"its C++ extension does not load: {error}"
_team_starter = None if extension is None else team_starter()
if extension is not None:
    extension.use_teams(_team_starter or 0)
_forced = -1  # index into instruction_sets(); -1 takes the best


def instruction_sets() -> tuple[str, ...]:
    """What the CPU kernels can run on here, best first; empty without the extension."""
    return tuple(extension.instruction_sets()) if extension else ()


def threads() -> str:
    """Where the threads of the CPU kernels come from, for people to read."""
    if extension is None:
        return "none"
    return "a pool of its own" if _team_starter is None else "those of torch's OpenMP"


def chosen_instruction_set() -> int:
    """Index into :func:`instruction_sets` of what the CPU kernels run on; -1 for the best."""
    return _forced


@contextmanager
def forced_instruction_set(index: int) -> Iterator[None]:
    """Runs the CPU kernels on one of :func:`instruction_sets` while it lasts, in the whole process."""
    global _forced
    before, _forced = _forced, index
    try:
        yield
    finally:
        _forced = before
