"""What machine code costs: how many blocks fit, and how long a million pixels take at least."""

from collections.abc import Mapping
from dataclasses import dataclass

WARP = 32


@dataclass(frozen=True)
class Multiprocessor:
    """The limits of one streaming multiprocessor, as NVIDIA's programming guide gives them."""

    warps: int
    blocks: int
    registers: int
    shared_bytes: int


MULTIPROCESSORS = {80: Multiprocessor(64, 32, 65536, 164 << 10), 90: Multiprocessor(64, 32, 65536, 228 << 10)}
_REGISTERS_AT_ONCE = 256  # a warp gets its registers in units of this many
_SHARED_AT_ONCE = 128
# CUDA keeps this much of every block's shared memory for itself. Compiled for sm_90 it is part of what a kernel
# declares, before that it comes on top.
RESERVED_SHARED = 1024


@dataclass(frozen=True)
class Gpu:
    """Rates of a GPU, as its maker states them."""

    name: str
    multiprocessors: int
    clock: float
    """Hz."""
    float32_lanes: int
    """Multiply-adds that a multiprocessor starts in a cycle; it can issue no more instructions of any kind."""
    shared_lanes: int
    """Words of 4 bytes that its shared memory delivers in a cycle."""
    special_lanes: int
    """Reciprocals and roots that it starts in a cycle."""
    bytes_per_second: float


H200 = Gpu("H200", 132, 1.98e9, 128, 32, 16, 4.8e12)


def occupancy(architecture: int, threads: int, registers: int, shared_bytes: int) -> float:
    """The share of a multiprocessor's warps that can be resident.

    Args:
        shared_bytes: of a block, without what CUDA keeps for itself.
    """
    limits = MULTIPROCESSORS[architecture]
    warps = -(-threads // WARP)
    of_warp = -(-registers * WARP // _REGISTERS_AT_ONCE) * _REGISTERS_AT_ONCE
    of_block = -(-(shared_bytes + RESERVED_SHARED) // _SHARED_AT_ONCE) * _SHARED_AT_ONCE
    by_registers = limits.registers // of_warp // warps if registers else limits.blocks
    blocks = min(limits.blocks, limits.warps // warps, by_registers, limits.shared_bytes // of_block)
    return blocks * warps / limits.warps


def words(name: str) -> int:
    """How many words of 4 bytes a thread moves with a load or store of this name."""
    suffixes = name.split(".")
    return 4 if "128" in suffixes else 2 if "64" in suffixes else 1


def of_kind(executed: Mapping[str, float], *kinds: str) -> float:
    """Instructions of these kinds, whatever their suffixes."""
    return sum(count for name, count in executed.items() if name.partition(".")[0] in kinds)


def floors(executed: Mapping[str, float], threads_per_pixel: float, least_bytes: float, gpu: Gpu) -> dict[str, float]:
    """Seconds that a million pixels take at least, for each thing that could be the narrowest.

    Args:
        executed: instructions of a thread, by name.
        least_bytes: of memory traffic for a pixel.
    """
    pixels = 1e6
    lane_seconds = pixels * threads_per_pixel / (gpu.multiprocessors * gpu.clock)
    shared = sum(count * words(name) for name, count in executed.items() if name.partition(".")[0] in ("LDS", "STS"))
    return {
        "issue": sum(executed.values()) * lane_seconds / gpu.float32_lanes,
        "multiply-adds": of_kind(executed, "FFMA", "FMUL", "FADD") * lane_seconds / gpu.float32_lanes,
        "shared memory": shared * lane_seconds / gpu.shared_lanes,
        "special functions": of_kind(executed, "MUFU") * lane_seconds / gpu.special_lanes,
        "memory": pixels * least_bytes / gpu.bytes_per_second,
    }
