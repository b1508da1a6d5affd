"""Builds CUDA source into a program that runs on a CPU: see cuda_on_cpu/cuda_runtime.h."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CUDA = TESTS.parent / "csrc" / "cuda"
FLAGS = ["-std=c++20", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-pthread"]
# What a build may be checked by, with the flags for it. Undefined behaviour is looked for along with bad addresses.
SANITIZERS = {
    "none": ["-O1"],
    "address": [
        *("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        *("-fno-sanitize=null,object-size,alignment", "--param", "asan-instrumentation-with-call-threshold=0"),
    ],
    "thread": ["-O1", "-fsanitize=thread"],
}


def build(folder: Path, driver: str, sources: Sequence[str], sanitizer: str = "none") -> Path:
    """Compile ``tests/<driver>`` and ``csrc/cuda/<sources>`` into a program in ``folder``.

    Skips the test where there is no compiler, or none with this sanitizer.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    flags = [*FLAGS, *SANITIZERS[sanitizer], "-I", str(TESTS / "cuda_on_cpu")]
    if sanitizer != "none":
        (folder / "empty.cpp").write_text("int main() { return 0; }\n")
        command = [compiler, *flags, str(folder / "empty.cpp"), "-o", str(folder / "empty")]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"{compiler} has no {sanitizer} sanitizer")

    def compile_one(source: Path) -> str:
        target = folder / f"{source.stem}-{source.suffix[1:]}.o"
        command = [compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(target)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [TESTS / driver, *(CUDA / name for name in sources)]))
    program = folder / "program"
    subprocess.run([compiler, *flags, *objects, "-o", str(program)], check=True)
    return program


def run(program: Path, standard_input: bytes = b"", *arguments: str) -> bytes:
    """What the program writes; what it complains of fails the test."""
    process = subprocess.run([program, *arguments], input=standard_input, capture_output=True, check=False)
    assert process.returncode == 0, process.stderr.decode(errors="replace")[:8000]
    return process.stdout
