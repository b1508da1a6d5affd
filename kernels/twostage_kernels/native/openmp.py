"""Torch's own threads for the CPU kernels."""

import ctypes
import os
from pathlib import Path

import torch

_LIBRARIES = ("libtorch_cpu.so", "libtorch_cpu.dylib")
_START_TEAM = "GOMP_parallel"


def team_starter() -> int | None:
    """Address of the function by which torch's OpenMP starts a parallel region; None where torch has none.

    It is looked up among what torch's library was linked with: a process may hold several OpenMP libraries.
    """
    for name in _LIBRARIES:
        path = Path(torch.__file__).parent / "lib" / name
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            return ctypes.cast(getattr(library, _START_TEAM), ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None
