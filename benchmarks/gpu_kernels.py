"""The GPU kernels, and what the tables need to know of each that no compiler prints.

Add a kernel here when it is added to the project; ``python -m benchmarks sass`` then tabulates it, and
``make gpu-check`` profiles it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel in one compiled form. "Pixel" is an output pixel: one of B * C * H * W."""

    name: str
    """A row of the table: the kernel and its variant."""
    entry: str
    """The plain name of its function."""
    variant: str = ""
    """A regular expression that tells it from other instances of a template, by their mangled names."""
    threads: int
    """In a block."""
    pixels: float
    """Output pixels of a block."""
    turns: tuple[float, ...] = ()
    """How often a thread runs the body of each loop, in the order in which the loops begin in the machine code (which
    may have unrolled them); a loop within another is counted for each time that it is entered. The table shows the
    loops that it found; those without a number here count once."""
    dynamic_shared_bytes: int = 0
    """Shared memory that the launch asks for, beside what the code declares."""
    least_bytes: float
    """A pixel: every input read once, every output written once."""


@dataclass(frozen=True, kw_only=True)
class CudaKernel(Kernel):
    """CUDA C++."""

    source: str
    """Of the translation unit, from the root of the project."""
    flags: tuple[str, ...] = ("-std=c++17", "-O3")
    """Those of the build."""


@dataclass(frozen=True, kw_only=True)
class TritonKernel(Kernel):
    """A function under ``triton.jit``. ``threads`` must be 32 times ``warps``."""

    module: str
    function: str
    signature: Mapping[str, str]
    """Types of the arguments that are no constants, as triton writes them: ``*fp32``, ``i32``."""
    constants: Mapping[str, Any]
    """The ``tl.constexpr`` arguments."""
    aligned: tuple[str, ...] = ()
    """Arguments that triton may take to be divisible by 16, as it finds at launch: pointers and round sizes."""
    warps: int = 4
    stages: int = 3


_SIMILARITY = tuple(
    CudaKernel(
        # All branches of the loop over rows count, also those for other types of images and for seldom work.
        name=f"similarity with gradient, {form}, every branch",
        entry="score_strips",
        variant=variant,
        source="csrc/cuda/strips_float.cu",
        flags=("-std=c++17", "-O3", "-ftz=true"),
        threads=128,
        pixels=256 * 128,
        turns=(3, 128 + 21),
        dynamic_shared_bytes=44 * 1024,
        least_bytes=12,
    )
    for form, variant in (("additive", "IfLi2ELb1ELb1ELb0"), ("product", "IfLi2ELb0ELb1ELb0"))
)

_PASTE = tuple(
    CudaKernel(
        name=f"paste, {channels} channel{'s' if channels > 1 else ''}, every branch and loop once",
        entry="paste_tiles",
        variant=f"IfLi{channels}E",
        source="csrc/cuda/paste_float.cu",
        threads=256,
        pixels=channels * 32 * 32,
        dynamic_shared_bytes=4 * (400 + (channels + 1) * 32 * 32) + 28 * 1024,
        least_bytes=8 + 4 / channels,
    )
    for channels in (1, 3)
)

KERNELS: tuple[CudaKernel | TritonKernel, ...] = (*_SIMILARITY, *_PASTE)
