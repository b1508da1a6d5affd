"""From a declared kernel to a listing of its machine code."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks import ROOT
from benchmarks.gpu_kernels import CudaKernel, TritonKernel


class CompileError(Exception):
    """A kernel did not compile, or a tool for it is missing."""


@dataclass(frozen=True)
class Binary:
    """A compiled translation unit, disassembled."""

    sass: str
    """What ``cuobjdump --dump-sass`` prints."""
    resources: str
    """What ``cuobjdump --dump-resource-usage`` prints."""
    dynamic_shared_bytes: int = 0
    """What a launch asks for, where the compiler decides that."""


def compile_kernel(kernel: CudaKernel | TritonKernel, architecture: int) -> Binary:
    """Compile ``kernel`` for sm_``architecture``.

    Raises:
        CompileError: a tool is missing or failed; the message is its last lines.
    """
    if isinstance(kernel, CudaKernel):
        return _compile_cuda(kernel.source, kernel.flags, architecture)
    return _compile_triton(kernel, architecture)


@cache
def _compile_cuda(source: str, flags: tuple[str, ...], architecture: int) -> Binary:
    """One translation unit, which may hold many kernels."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        include = ("-I", str(ROOT / "csrc"))
        _run("nvcc", "-cubin", f"-arch=sm_{architecture}", *flags, *include, "-o", str(cubin), str(ROOT / source))
        return _disassembled(cubin)


def _compile_triton(kernel: TritonKernel, architecture: int) -> Binary:
    if importlib.util.find_spec("triton") is None:
        raise CompileError("triton is not installed")
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(kernel.module), kernel.function)
    constants = {**kernel.constants, **{name: tl.dtype(kind) for name, kind in kernel.types.items()}}
    signature = {**kernel.signature, **dict.fromkeys(constants, "constexpr")}
    ordered = {name: signature[name] for name in function.arg_names}
    attributes = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in kernel.aligned}
    source = ASTSource(function, ordered, constants, attributes)
    options = {"num_warps": kernel.warps, "num_stages": kernel.stages, "enable_fp_fusion": kernel.fused}
    if architecture in kernel.registers:
        options["maxnreg"] = kernel.registers[architecture]
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        return _disassembled(cubin, int(compiled.metadata.shared))


def _disassembled(cubin: Path, dynamic_shared_bytes: int = 0) -> Binary:
    sass, resources = (_run("cuobjdump", option, str(cubin)) for option in ("--dump-sass", "--dump-resource-usage"))
    return Binary(sass, resources, dynamic_shared_bytes)


def _run(tool: str, *arguments: str) -> str:
    folders = os.pathsep.join(filter(None, (os.environ.get("PATH"), _triton_tools())))
    path = shutil.which(tool, path=folders)
    if path is None:
        raise CompileError(f"{tool} was found neither on PATH nor in triton's package")
    process = subprocess.run(
        (path, *arguments), capture_output=True, text=True, env={**os.environ, "PATH": folders}, timeout=600
    )
    if process.returncode != 0:
        raise CompileError(f"{tool} exited {process.returncode}: {(process.stderr or process.stdout).strip()[-2000:]}")
    return process.stdout


def _triton_tools() -> str | None:
    """The folder of the disassemblers in triton's package; cuobjdump calls nvdisasm, so both are needed."""
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        return None
    return str(Path(found.origin).parent / "backends" / "nvidia" / "bin")
