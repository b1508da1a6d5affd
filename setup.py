"""Builds the C++ extension. Metadata and packages are declared in pyproject.toml; torch is not needed here."""

import platform
from pathlib import Path
from typing import Any

import pybind11
from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CPU = Path("csrc/cpu")
FLAGS = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
INSTRUCTION_SETS: dict[str, list[str]] = {"plain": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512vl"]
# Each op has a source file for every instruction set; which one runs is decided where the program runs.
FLAGS_OF_FILE = {f"{op}_{name}.cpp": flags for op in ("tile", "paste") for name, flags in INSTRUCTION_SETS.items()}
CPU_SOURCES = ("similarity.cpp", "thread_pool.cpp", "paste.cpp", "paste_shape.cpp", *FLAGS_OF_FILE)
# Which pixels are inside a polygon is decided by rounded numbers, which must be the same everywhere.
FLAGS_OF_FILE["paste_shape.cpp"] = ["-ffp-contract=off"]


class BuildExtension(build_ext):
    """Gives some source files flags of their own."""

    def build_extensions(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_flags(obj: str, src: str, ext: str, cc_args: Any, flags: list[str], pp_opts: Any) -> None:
            compile_one(obj, src, ext, cc_args, [*flags, *FLAGS_OF_FILE.get(Path(src).name, [])], pp_opts)

        self.compiler._compile = compile_with_flags
        super().build_extensions()


EXTENSION = Extension(
    "twostage_kernels._extension",
    sources=[
        "csrc/bindings.cpp",
        "csrc/bindings_paste.cpp",
        *(str(CPU / name) for name in CPU_SOURCES),
    ],
    depends=[str(path) for path in sorted(Path("csrc").rglob("*.h"))],
    include_dirs=[pybind11.get_include()],
    language="c++",
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
)

ParallelCompile().install()
setup(ext_modules=[EXTENSION], cmdclass={"build_ext": BuildExtension})
