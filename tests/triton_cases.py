"""What the tests of the Triton kernels share: running a file in the interpreter, and compiling without a GPU."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from twostage_kernels import triton_gpu

TESTS = Path(__file__).parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

with_triton = pytest.mark.skipif(not triton_gpu.is_installed(), reason="triton is not installed")
compiled = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1: kernels are not compiled in this process")


def run_interpreted(file: str) -> None:
    """Run a file of tests in a process in which Triton interprets its kernels: it decides on import whether it does."""
    numpy_version, triton_version = (
        tuple(int(part) for part in metadata.version(name).split(".")[:2]) for name in ("numpy", "triton")
    )
    if triton_version < (3, 7) and numpy_version >= (2, 4):
        pytest.skip("the interpreter of triton 3.6 does not run with numpy 2.4")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS / file)],
        cwd=TESTS.parent,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert re.search(r"\d+ passed", process.stdout)


def compile_kernel(
    function: Any, architecture: int, pointers: Mapping[str, str], constants: Mapping[str, Any], aligned: list[str]
) -> Any:
    """Compile for sm_``architecture``.

    Args:
        pointers: what the arguments that are tensors point to, as triton writes it.
        constants: those of the kernel and the compiler's options; an argument that is None is absent.
        aligned: arguments that are multiples of 16.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = function.arg_names
    signature: dict[str, str] = {}
    for parameter in function.params:
        if parameter.is_constexpr or parameter.name in constants:
            signature[parameter.name] = "constexpr"
        elif parameter.name in pointers:
            signature[parameter.name] = "*" + pointers[parameter.name]
        else:
            signature[parameter.name] = parameter.annotation_type or "i32"
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items() if name in names},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {name: value for name, value in constants.items() if name not in names}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def resources(kernel: Any, folder: Path) -> dict[str, int]:
    """What the assembler says of a compiled kernel: registers of a thread, bytes of its stack (spilled registers)."""
    import triton

    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", text)}
