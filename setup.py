"""Builds the C++ extension and, where there is nvcc, the one of CUDA kernels.

Metadata and packages are declared in pyproject.toml; torch is not needed here. TWOSTAGE_CUDA_ARCHITECTURES says what
the CUDA kernels are compiled for: a list like "80;90", "native" for the GPU of this machine, or "none" to leave them
out. CUDA_HOME says where nvcc is, if it is not on the path.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pybind11
from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

CPU = Path("csrc/cpu")
FLAGS = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
INSTRUCTION_SETS: dict[str, list[str]] = {"plain": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512vl"]
# Each op has a source file for every instruction set; which one runs is decided where the program runs.
FLAGS_OF_FILE = {
    f"{op}_{name}.cpp": flags for op in ("tile", "paste", "feature") for name, flags in INSTRUCTION_SETS.items()
}
CPU_SOURCES = (
    *("similarity.cpp", "paste.cpp", "paste_shape.cpp", "feature_distance.cpp"),
    *("kernel_choice.cpp", "threads.cpp", "thread_pool.cpp"),
    *FLAGS_OF_FILE,
)
# Which pixels are inside a polygon is decided by rounded numbers, which must be the same everywhere.
FLAGS_OF_FILE["paste_shape.cpp"] = ["-ffp-contract=off"]


# --- CUDA ----------------------------------------------------------------------------------------------------------

CUDA_SOURCES = (
    *("similarity.cu", "strips_float.cu", "strips_double.cu", "rescale.cu"),
    *("paste.cu", "paste_float.cu", "paste_double.cu"),
)
ARCHITECTURES = "75;80;86;89;90"  # the last one as PTX too, from which a driver compiles for newer GPUs
CUDA_FLAGS = ["-std=c++17", "-O3", "--cudart=static", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
# Subnormal numbers are taken as 0, which approximate reciprocals and roots then need not look out for. Polygons must
# not be compiled so: which pixels are inside would not be what it is elsewhere.
CUDA_FLAGS_OF_FILE = {name: ["-ftz=true"] for name in CUDA_SOURCES if not name.startswith("paste")}


def find_nvcc() -> Path | None:
    """nvcc of CUDA_HOME, of the path, or where CUDA's own installer puts it."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for home in homes:
        if not (home / "bin" / "nvcc").is_file():
            raise SystemExit(f"CUDA_HOME is {home}, which has no bin/nvcc; unset it to build without CUDA kernels")
        return home / "bin" / "nvcc"
    on_path = shutil.which("nvcc")
    usual = Path("/usr/local/cuda/bin/nvcc")
    return Path(on_path).resolve() if on_path else usual if usual.is_file() else None


def toolkit_folder(nvcc: Path) -> Path:
    """The toolkit that ``nvcc`` belongs to: what is on the path may be a script that calls another one."""
    command = [nvcc, "--dryrun", "-E", "-x", "cu", "/dev/null"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    (top,) = (line.partition("TOP=")[2] for line in words if line.startswith("#$ TOP="))
    return Path(top).resolve()


def architecture_flags(nvcc: Path, wanted: str) -> list[str]:
    """What makes nvcc compile for ``wanted``; of the default list, for those that this nvcc knows."""
    if wanted == "native":
        return ["-arch=native"]
    versions = wanted.replace(",", ";").split(";")
    if not all(version.isdecimal() for version in versions):
        raise SystemExit(f"TWOSTAGE_CUDA_ARCHITECTURES is {wanted!r}; accepted: a list like '80;90', 'native', 'none'")
    if wanted == ARCHITECTURES:
        known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
        versions = [version for version in versions if f"compute_{version}" in known]
    newest = max(versions, key=int)
    flags = [f"-gencode=arch=compute_{version},code=sm_{version}" for version in versions]
    return [*flags, f"-gencode=arch=compute_{newest},code=compute_{newest}"]


class BuildExtension(build_ext):
    """Gives some source files flags of their own, and those of CUDA their compiler."""

    def build_extensions(self) -> None:
        self.compiler.src_extensions.append(".cu")
        compile_one = self.compiler._compile

        def compile_with_flags(obj: str, src: str, ext: str, cc_args: Any, flags: list[str], pp_opts: Any) -> None:
            if ext == ".cu":
                self.compile_cuda(obj, src)
            else:
                compile_one(obj, src, ext, cc_args, [*flags, *FLAGS_OF_FILE.get(Path(src).name, [])], pp_opts)

        self.compiler._compile = compile_with_flags
        super().build_extensions()

    def compile_cuda(self, obj: str, src: str) -> None:
        assert NVCC is not None
        flags = [*CUDA_FLAGS, *CUDA_FLAGS_OF_FILE.get(Path(src).name, [])]
        command = [str(NVCC), *flags, *architecture_flags(NVCC, WANTED_ARCHITECTURES), "-c", src, "-o", obj]
        if os.environ.get("CXX"):
            command += ["-ccbin", os.environ["CXX"]]
        if subprocess.run(command, check=False).returncode:
            raise CompileError(
                f"the CUDA kernels do not compile: {' '.join(command)} failed, see above. "
                "TWOSTAGE_CUDA_ARCHITECTURES=none builds without them."
            )


WANTED_ARCHITECTURES = os.environ.get("TWOSTAGE_CUDA_ARCHITECTURES") or ARCHITECTURES
NVCC = None if WANTED_ARCHITECTURES == "none" else find_nvcc()

EXTENSION = Extension(
    "twostage_kernels._extension",
    sources=[
        "csrc/bindings.cpp",
        "csrc/bindings_paste.cpp",
        "csrc/bindings_features.cpp",
        *(str(CPU / name) for name in CPU_SOURCES),
    ],
    depends=[str(path) for path in sorted(Path("csrc").rglob("*.h"))],
    include_dirs=[pybind11.get_include()],
    language="c++",
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
)

EXTENSIONS = [EXTENSION]
if NVCC is not None:
    TOOLKIT = toolkit_folder(NVCC)
    EXTENSIONS.append(
        Extension(
            "twostage_kernels._cuda_extension",
            sources=[
                "csrc/bindings_cuda.cpp",
                "csrc/bindings_paste_cuda.cpp",
                *(f"csrc/cuda/{name}" for name in CUDA_SOURCES),
            ],
            depends=[str(path) for path in sorted(Path("csrc").rglob("*.*h"))],
            include_dirs=[pybind11.get_include()],
            define_macros=[("TWOSTAGE_CUDA_ARCHITECTURES", f'"{WANTED_ARCHITECTURES}"')],
            library_dirs=[str(TOOLKIT / folder) for folder in ("lib64", "lib")],
            libraries=["cudart_static", "dl", "rt"],
            language="c++",
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
        )
    )

ParallelCompile().install()
setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": BuildExtension})
