"""The CPU kernels under the address and undefined-behaviour sanitizers, on buffers of exactly the right size."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The address sanitizer finds what the three checks left out would; with them the compiler takes minutes.
FLAGS = [
    *("-std=c++17", "-O1", "-g1", "-ffp-contract=fast", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-fno-sanitize=null,object-size,alignment", "-pthread"),
]
GCC_FLAGS = ["--param", "asan-instrumentation-with-call-threshold=0"]  # compiles in half the time
PROGRAMS = ("native_cases", "native_paste_cases", "native_feature_cases")
INSTRUCTION_SETS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl"],
}


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
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    cpu = ROOT / "csrc" / "cpu"
    sources: dict[Path, list[str]] = {ROOT / "tests" / f"{name}.cpp": [] for name in PROGRAMS}
    sources |= {
        cpu / name: []
        for name in (
            "similarity.cpp",
            "thread_pool.cpp",
            "threads.cpp",
            "paste.cpp",
            "feature_distance.cpp",
            "kernel_choice.cpp",
        )
    }
    sources[cpu / "paste_shape.cpp"] = ["-ffp-contract=off"]
    for name, flags in INSTRUCTION_SETS.items():
        if x86 or name == "plain":
            sources |= {cpu / f"{op}_{name}.cpp": flags for op in ("tile", "paste", "feature")}

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
