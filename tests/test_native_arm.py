"""The CPU kernels built for 64-bit Arm and run by an emulator give this machine's numbers."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=fast", "-pthread"]
INSTRUCTION_SETS = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl"]}


def found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"{names[0]} is not installed")


def sums(
    program: str, compiler: str, emulator: list[str], kernels: dict[str, list[str]], folder: Path
) -> list[list[float]]:
    cpu = ROOT / "csrc" / "cpu"
    sources: dict[Path, list[str]] = {ROOT / "tests" / f"{program}.cpp": []}
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
    sources |= {
        cpu / f"{op}_{name}.cpp": flags for name, flags in kernels.items() for op in ("tile", "paste", "feature")
    }
    folder.mkdir()
    for source, flags in sources.items():
        command = [compiler, *FLAGS, *flags, "-c", str(source), "-o", str(folder / f"{source.stem}.o")]
        subprocess.run(command, check=True)
    subprocess.run([compiler, *map(str, folder.glob("*.o")), "-static", "-pthread", "-o", folder / "run"], check=True)
    process = subprocess.run([*emulator, folder / "run"], capture_output=True, text=True, check=True)
    return [[float(word) for word in line.split()] for line in process.stdout.splitlines()]


@pytest.mark.parametrize("program", ["native_cases", "native_paste_cases", "native_feature_cases"])
def test_neon_gives_the_numbers_of_this_machine(tmp_path: Path, program: str) -> None:
    compiler = found("aarch64-linux-gnu-g++", "aarch64-linux-gnu-g++-12")
    emulator = found("qemu-aarch64", "qemu-aarch64-static")
    arm = sums(program, compiler, [emulator], {"plain": []}, tmp_path / "arm")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    host = sums(program, found("g++"), [], {"plain": [], **(INSTRUCTION_SETS if x86 else {})}, tmp_path / "host")
    assert len(arm) == len(host) > 40
    for got, wanted in zip(arm, host, strict=True):
        # The sums' elements differ by rounding alone; a gradient of a nearly flat window is of the order of 100.
        assert got == pytest.approx(wanted, rel=1e-4, abs=2e-3)
