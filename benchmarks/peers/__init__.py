"""Other packages that do the same work. Nothing here is imported before a case asks for it."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from benchmarks.case import Absent, Contender, Role
from benchmarks.environment import installed_version


@dataclass(frozen=True)
class Peer:
    """A package and how its function is got hold of."""

    name: str
    build: Callable[[], Callable[..., Any]]
    distribution: str | None = None
    """Its name in a package index, where that is not ``name``."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    role: Role = "peer"

    def load(self, device: str, adapt: Callable[[Callable[..., Any]], Callable[[Any], Any]]) -> Contender | Absent:
        """The peer's function as a contender, by ``adapt`` of it; or why it is not here."""
        if device not in self.devices:
            return Absent(self.name, f"it has nothing for {device}")
        try:
            function = self.build()
        except (ImportError, OSError, RuntimeError) as error:
            return Absent(self.name, f"{type(error).__name__}: {error}".split("\n")[0])
        return Contender(self.name, self.role, adapt(function), installed_version(self.distribution or self.name))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled for one shape. What was compiled before is forgotten: torch gives up on a function's ninth shape."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def import_submodule(package: str, name: str) -> ModuleType:
    """``package.name``, without what the package itself imports (piq's wants torchvision).

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    if package not in sys.modules:
        found = importlib.util.find_spec(package)
        if found is None or found.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {package!r}")
        bare = ModuleType(package)
        bare.__path__ = list(found.submodule_search_locations)
        sys.modules[package] = bare
    return importlib.import_module(f"{package}.{name}")
