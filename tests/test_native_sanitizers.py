"""The CPU kernels under the address and undefined-behaviour sanitizers, on buffers of exactly the right size."""

import os
import platform
import shutil
import subprocess
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


def test_no_kernel_reads_or_writes_what_it_should_not(tmp_path: Path) -> None:
    if not os.environ.get("TWOSTAGE_TEST_SANITIZERS"):
        pytest.skip("TWOSTAGE_TEST_SANITIZERS is not set: building the kernels with sanitizers takes a minute")
    compiler = command_with_sanitizers(tmp_path)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    cpu = ROOT / "csrc" / "cpu"
    sources: dict[Path, list[str]] = {
        ROOT / "tests" / "native_cases.cpp": [],
        cpu / "similarity.cpp": [],
        cpu / "thread_pool.cpp": [],
    }
    sources |= {cpu / f"tile_{name}.cpp": flags for name, flags in INSTRUCTION_SETS.items() if x86 or name == "plain"}

    def compile_one(source: Path) -> Path:
        target = tmp_path / f"{source.stem}.o"
        command = [*compiler, *sources[source], "-c", str(source), "-o", str(target)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(target) for target in pool.map(compile_one, sources)]
    subprocess.run([*compiler, *objects, "-o", str(tmp_path / "run")], check=True)
    process = subprocess.run([tmp_path / "run"], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
