"""The CPU kernels under the address and undefined-behaviour sanitizers, on buffers of exactly the right size."""

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from native_sources import INSTRUCTION_SETS, PROGRAMS, native_sources

# The address sanitizer finds what the three checks left out would; with them the compiler takes minutes.
FLAGS = [
    *("-std=c++17", "-O1", "-g1", "-ffp-contract=fast", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-fno-sanitize=null,object-size,alignment", "-pthread"),
]
GCC_FLAGS = ["--param", "asan-instrumentation-with-call-threshold=0"]  # compiles in half the time


def command_with_sanitizers(folder: Path) -> list[str]:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    (folder / "empty.cpp").write_text("int main() { return 0; }\n")
    for command in ([compiler, *FLAGS, *GCC_FLAGS], [compiler, *FLAGS]):
        process = subprocess.run([*command, "empty.cpp", "-o", "empty"], cwd=folder, capture_output=True, check=False)
        if process.returncode == 0:
            return command
    pytest.skip(f"{compiler} has no address and undefined-behaviour sanitizers")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds one of the programs in this folder together with all kernels."""
    if not os.environ.get("TWOSTAGE_TEST_SANITIZERS"):
        pytest.skip("TWOSTAGE_TEST_SANITIZERS is not set: building the kernels with sanitizers takes a minute")
    folder = tmp_path_factory.mktemp("sanitizers")
    compiler = command_with_sanitizers(folder)
    sources = native_sources(PROGRAMS, INSTRUCTION_SETS)

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        command = [*compiler, *sources[source], "-c", str(source), "-o", str(target)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))

    def link(program: str) -> Path:
        wanted = [str(target) for target in objects if target.stem == program or target.stem not in PROGRAMS]
        subprocess.run([*compiler, *wanted, "-o", str(folder / program)], check=True)
        return folder / program

    return link


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_kernel_reads_or_writes_what_it_should_not(build: Callable[[str], Path], program: str) -> None:
    process = subprocess.run([build(program)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
