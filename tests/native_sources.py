"""The sources that the programs in C++ beside the tests are built from: all kernels for the CPU."""

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("native_cases", "native_paste_cases", "native_feature_cases")
PLAIN: dict[str, list[str]] = {"plain": []}
# The compiler's flags for every instruction set that this kind of machine may have.
INSTRUCTION_SETS = dict(PLAIN)
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512vl"]


def native_sources(programs: Iterable[str], instruction_sets: Mapping[str, list[str]]) -> dict[Path, list[str]]:
    """Every source of the kernels and of the programs, and the flags that it alone is compiled with."""
    cpu = ROOT / "csrc" / "cpu"
    shared = ("similarity", "paste", "feature_distance", "kernel_choice", "threads", "thread_pool")
    return {
        **{ROOT / "tests" / f"{program}.cpp": [] for program in programs},
        **{cpu / f"{name}.cpp": [] for name in shared},
        cpu / "paste_shape.cpp": ["-ffp-contract=off"],
        **{
            cpu / f"{op}_{name}.cpp": flags
            for name, flags in instruction_sets.items()
            for op in ("tile", "paste", "feature")
        },
    }
