"""One row for each kernel and architecture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gpu_kernels import CudaKernel, TritonKernel
from benchmarks.sass import budget
from benchmarks.sass.compiling import Binary, CompileError, compile_kernel
from benchmarks.sass.listing import Loop, Resources, executed, functions, loops, reachable, resources

ARCHITECTURES = (80, 90)
# The H200 runs code for this one.
_FLOOR_ARCHITECTURE = 90
_COLUMNS = (
    *("kernel", "sm", "registers", "shared KiB", "spills", "occupancy", "instructions", "FFMA", "other float32"),
    *("LDS", "STS", "LDG", "MUFU", "loops (instructions x turns)", "floor, us", "by"),
)


@dataclass(frozen=True)
class Facts:
    """What is known of a kernel compiled for one architecture."""

    kernel: CudaKernel | TritonKernel
    architecture: int
    resources: Resources
    shared_bytes: int
    """Of a block, as the launch asks for it and as the code declares it, without what CUDA keeps for itself."""
    loops: Sequence[Loop]
    executed: Mapping[str, float]
    """Instructions of a thread, by name."""

    @property
    def occupancy(self) -> float:
        return budget.occupancy(self.architecture, self.kernel.threads, self.resources.registers, self.shared_bytes)

    @property
    def spills(self) -> float:
        """Loads and stores of local memory, of a thread."""
        return budget.of_kind(self.executed, "LDL", "STL")

    def per_pixel(self, *kinds: str) -> float:
        return budget.of_kind(self.executed, *kinds) * self.kernel.threads / self.kernel.pixels

    @property
    def floors(self) -> dict[str, float]:
        threads_per_pixel = self.kernel.threads / self.kernel.pixels
        return budget.floors(self.executed, threads_per_pixel, self.kernel.least_bytes, budget.H200)


def examine(kernel: CudaKernel | TritonKernel, architecture: int) -> Facts:
    """Compile ``kernel`` for sm_``architecture`` and count.

    Raises:
        CompileError: it does not compile, or its entry is not found once.
    """
    return read_binary(kernel, architecture, compile_kernel(kernel, architecture))


def read_binary(kernel: CudaKernel | TritonKernel, architecture: int, binary: Binary) -> Facts:
    """Count in a compiled kernel; see :func:`examine`."""
    code = functions(binary.sass)
    fitting = [name for name in code if kernel.entry in name and re.search(kernel.variant, name)]
    if len(fitting) != 1:
        raise CompileError(
            f"entry {kernel.entry!r}, variant {kernel.variant!r} fit {len(fitting)} functions of {', '.join(code)}"
        )
    (name,) = fitting
    instructions = reachable(code[name])
    found = resources(binary.resources)[name]
    kept = budget.RESERVED_SHARED if architecture >= _FLOOR_ARCHITECTURE and found.shared_bytes else 0
    shared = found.shared_bytes - kept + binary.dynamic_shared_bytes + kernel.dynamic_shared_bytes
    return Facts(
        kernel, architecture, found, shared, loops(instructions), executed(instructions, kernel.turns_on(architecture))
    )


def render(facts: Sequence[Facts]) -> str:
    """As Markdown."""
    gpu = budget.H200
    lines = [
        "# What the GPU kernels compile to",
        "",
        "From `python -m benchmarks sass`; no GPU was needed. Instructions are those of the machine code for one",
        "output pixel, loops counted as often as `benchmarks/gpu_kernels.py` says they turn. Spills are a thread's",
        f"loads and stores of local memory. The floor is that of a million pixels on an {gpu.name}:",
        f"{gpu.multiprocessors} multiprocessors at {gpu.clock / 1e9:.2f} GHz, each with {gpu.float32_lanes} float32",
        f"lanes (and as many instructions issued in a cycle), {gpu.shared_lanes} words of shared memory and",
        f"{gpu.special_lanes} special functions in a cycle, and {gpu.bytes_per_second / 1e12:.1f} TB/s: the largest of",
        "these, each as if nothing else were in its way.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
    ]
    return "\n".join([*lines, *(_row(fact) for fact in facts)])


def _row(fact: Facts) -> str:
    turns = [*(f"{turn:g}" for turn in fact.kernel.turns_on(fact.architecture)), *["?"] * len(fact.loops)]
    bodies = ", ".join(f"{loop.length} x {turn}" for loop, turn in zip(fact.loops, turns, strict=False))
    everything = sum(fact.executed.values()) * fact.kernel.threads / fact.kernel.pixels
    floor, reason = "", ""
    if fact.architecture == _FLOOR_ARCHITECTURE:
        reason, seconds = max(fact.floors.items(), key=lambda item: item[1])
        floor = f"{seconds * 1e6:.2f}"
    counts = [
        fact.per_pixel(*kinds) for kinds in (("FFMA",), ("FADD", "FMUL"), ("LDS",), ("STS",), ("LDG",), ("MUFU",))
    ]
    cells = [
        fact.kernel.name,
        str(fact.architecture),
        str(fact.resources.registers),
        f"{fact.shared_bytes / 1024:.1f}",
        f"{fact.spills:g}",
        f"{fact.occupancy:.0%}",
        f"{everything:.1f}",
        *(f"{count:.2f}" for count in counts),
        bodies or "none",
        floor,
        reason,
    ]
    return f"| {' | '.join(cells)} |"
