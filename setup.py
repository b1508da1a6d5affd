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
# Each instruction set has a source file of its own; which one runs is decided where the program runs.
INSTRUCTION_SETS = {"tile_plain.cpp": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["tile_avx2.cpp"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["tile_avx512.cpp"] = ["-mavx512f", "-mavx512dq", "-mavx512vl"]


class BuildExtension(build_ext):
    """Gives the source files of an instruction set their flags."""

    def build_extensions(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_flags(obj: str, src: str, ext: str, cc_args: Any, flags: list[str], pp_opts: Any) -> None:
            compile_one(obj, src, ext, cc_args, [*flags, *INSTRUCTION_SETS.get(Path(src).name, [])], pp_opts)

        self.compiler._compile = compile_with_flags
        super().build_extensions()


EXTENSION = Extension(
    "twostage_kernels._extension",
    sources=[
        "csrc/bindings.cpp",
        *(str(CPU / name) for name in ("similarity.cpp", "thread_pool.cpp", *INSTRUCTION_SETS)),
    ],
    depends=[str(path) for path in sorted(Path("csrc").rglob("*.h"))],
    include_dirs=[pybind11.get_include()],
    language="c++",
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
)

ParallelCompile().install()
setup(ext_modules=[EXTENSION], cmdclass={"build_ext": BuildExtension})
