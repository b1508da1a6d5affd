"""Every case. One module for each kind of work, each with ``cases(device)`` and ``small_cases(device)``."""

from benchmarks.case import Case
from benchmarks.cases import auroc, features, paste, similarity, steps, usual_way

_MODULES = (similarity, paste, features, auroc, steps, usual_way)


def all_cases(device: str) -> list[Case]:
    """What there is to time on ``device``, cpu or cuda."""
    return [case for module in _MODULES for case in module.cases(device)]


def small_cases(device: str) -> list[Case]:
    """Every kernel on images so small that a memory checker gets through; for checks only."""
    return [case for module in (similarity, paste, features) for case in module.small_cases(device)]


def find(device: str, name: str) -> Case:
    """The case of that name.

    Raises:
        KeyError: there is none.
    """
    for case in all_cases(device):
        if case.name == name:
            return case
    raise KeyError(f"there is no case {name!r} on {device}; `python -m benchmarks list` shows them all")
