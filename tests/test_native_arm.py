"""The CPU kernels built for 64-bit Arm and run by an emulator give this machine's numbers."""

import shutil
import subprocess
from pathlib import Path

import pytest
from native_sources import INSTRUCTION_SETS, PLAIN, PROGRAMS, native_sources

FLAGS = ["-std=c++17", "-O2", "-ffp-contract=fast", "-pthread"]


def found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"{names[0]} is not installed")


def sums(
    program: str, compiler: str, emulator: list[str], kernels: dict[str, list[str]], folder: Path
) -> list[list[float]]:
    folder.mkdir()
    for source, flags in native_sources([program], kernels).items():
        command = [compiler, *FLAGS, *flags, "-c", str(source), "-o", str(folder / f"{source.stem}.o")]
        subprocess.run(command, check=True)
    subprocess.run([compiler, *map(str, folder.glob("*.o")), "-static", "-pthread", "-o", folder / "run"], check=True)
    process = subprocess.run([*emulator, folder / "run"], capture_output=True, text=True, check=True)
    return [[float(word) for word in line.split()] for line in process.stdout.splitlines()]


@pytest.mark.parametrize("program", PROGRAMS)
def test_neon_gives_the_numbers_of_this_machine(tmp_path: Path, program: str) -> None:
    compiler = found("aarch64-linux-gnu-g++", "aarch64-linux-gnu-g++-12")
    emulator = found("qemu-aarch64", "qemu-aarch64-static")
    arm = sums(program, compiler, [emulator], PLAIN, tmp_path / "arm")
    host = sums(program, found("g++"), [], INSTRUCTION_SETS, tmp_path / "host")
    assert len(arm) == len(host) > 40
    for got, wanted in zip(arm, host, strict=True):
        # The sums' elements differ by rounding alone; a gradient of a nearly flat window is of the order of 100.
        assert got == pytest.approx(wanted, rel=1e-4, abs=2e-3)
