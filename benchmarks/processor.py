"""The float32 multiply-add rate of a processor, by a loop that does nothing else. Needs a C++ compiler."""

import ctypes
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

_SOURCE = Path(__file__).with_name("multiply_add.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
_TURNS = 4_000_000
_REPEATS = 10


def processor_rate() -> float | None:
    """Multiply-adds per second on as many threads as torch uses, the fastest of several runs.

    None where there is no compiler, or none that builds the loop.
    """
    library = _built()
    if library is None:
        return None
    rates = [library.multiply_add_rate(torch.get_num_threads(), _TURNS) for _ in range(_REPEATS)]
    if not all(rates):
        raise AssertionError("the loop of multiply-adds came to a wrong result")
    return float(max(rates))


@cache
def _built() -> ctypes.CDLL | None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    with TemporaryDirectory() as folder:
        target = Path(folder) / "multiply_add.so"
        command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(target)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        library = ctypes.CDLL(str(target))
    library.multiply_add_rate.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.multiply_add_rate.restype = ctypes.c_double
    return library
