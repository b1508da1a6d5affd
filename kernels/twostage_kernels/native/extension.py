"""The compiled extension, or the reason why it is not here."""

from importlib import import_module
from types import ModuleType

extension: ModuleType | None = None
unavailable: str | None = None
try:
    extension = import_module("twostage_kernels._extension")
except ModuleNotFoundError:
    unavailable = "this installation was built without its C++ extension"
except ImportError as error:
    unavailable = f"its C++ extension does not load: {error}"


def instruction_sets() -> tuple[str, ...]:
    """What the CPU kernels can run on here, best first; empty without the extension."""
    return tuple(extension.instruction_sets()) if extension else ()
