"""The GPU kernels, and what the tables need to know of each that no compiler prints.

Add a kernel here when it is added to the project; ``python -m benchmarks sass`` then tabulates it, and
``make gpu-check`` profiles it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    older_turns: tuple[float, ...] | None = None
    """The same before sm_90, where its loops are others."""
    dynamic_shared_bytes: int = 0
    """Shared memory that the launch asks for, beside what the code declares."""
    least_bytes: float
    """A pixel: every input read once, every output written once."""

    def turns_on(self, architecture: int) -> tuple[float, ...]:
        return self.turns if self.older_turns is None or architecture >= 90 else self.older_turns


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
    types: Mapping[str, str] = field(default_factory=dict)
    """The ``tl.constexpr`` arguments that are types of numbers, as triton writes them."""
    warps: int = 4
    stages: int = 3
    registers: Mapping[int, int] = field(default_factory=dict)
    """The most that a thread may have, by architecture, where the launch says so."""
    fused: bool = True
    """Whether the compiler may fuse multiply and add."""


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


def _triton_similarity(
    name: str,
    form: str,
    *,
    gradient: bool,
    masked: bool = False,
    mean: tuple[float, ...] = (),  # turns of loops before the one over rows
    registers: Mapping[int, int],
) -> TritonKernel:
    """Of 256 x 3 x 128 x 128 float32 images, or with a mask of as many: a program has one plane."""
    absent = {"upstream": None, "gradient_y": None}
    absent |= {"scores": None} if gradient else {"gradient_x": None, "sums": None}
    absent |= {} if masked else {"mask": None, "scales": None}
    pointers = {
        **dict.fromkeys(
            ("prediction", "target", "sigma", "mask", "scales", "scores", "gradient_x", "scratch"), "*fp32"
        ),
        "sums": "*fp64",
    }
    sizes = ("channels", "height", "width", "strips", "strips_across", "segments", "rows", "first_row", "stretches")
    numbers = ("alpha", "beta", "gamma", "c1", "c2", "noise", "window_factor", "pixel_factor")
    signature = {**pointers, **dict.fromkeys(sizes, "i32"), **dict.fromkeys(numbers, "i64")}
    return TritonKernel(
        name=f"Triton similarity, {name}",
        entry="similarity_kernel",
        threads=128,
        pixels=128 * 128,
        turns=(*mean, 14, 10),
        older_turns=(*mean, 140),
        least_bytes=12 + (4 / 3 if masked else 0),
        module="twostage_kernels.triton_gpu.device.stream",
        function="similarity_kernel",
        signature={argument: kind for argument, kind in signature.items() if argument not in absent},
        constants={
            **absent,
            "FORM": form,
            "SAME": False,
            "MASKED": masked,
            "UPSTREAM": False,
            "MAP": not gradient,
            "VALUE": gradient,
            "L1": False,
            "GRADIENTS": int(gradient),
            "HALF": 5,
            "G": 1,
            "N": 128,
            "MARGIN": 5,
            "STRETCH": 10,
        },
        types={"TYPE": "fp32"},
        registers=registers,
    )


def _triton_paste(name: str, *, pixel: str, options: bool = False, in_place: bool = False) -> TritonKernel:
    """Of 3 x H x W images with W a multiple of 16: a program has a tile of 16 x 32 pixels.

    The turns are those of one polygon of 5 vertices with a blur that reaches 6 pixels, well inside of which the tile
    lies. Most tiles of an image are touched by none, and are copied.
    """
    optional = {
        **dict.fromkeys(("color_gain", "color_offset", "edge_amplitude", "edge_grain"), "*fp32"),
        **dict.fromkeys(("source_layout", "blend_mode", "edge_seed"), "*i64"),
    }
    pointers = {
        "target": f"*{pixel}",
        "out": f"*{pixel}",
        "opacity": "*fp32",
        "source": f"*{pixel}",
        **dict.fromkeys(("vertices", "transform", "blur_sigma", "strength"), "*fp32"),
        **dict.fromkeys(("vertex_count", "source_index"), "*i64"),
    }
    sizes = dict.fromkeys(("channels", "height", "width", "polygons", "slots"), "i32")
    strides = ("image_stride", "channel_stride", "row_stride")
    source = ("image_stride", "channel_stride", "row_stride", "column_stride")
    numbers = ("sources", "source_elements", "source_height", "source_width", "low", "high")
    wide = dict.fromkeys((*strides, *(f"source_{stride}" for stride in source), *numbers), "i64")
    bytes_of_pixel = 1 if pixel == "u8" else 4
    return TritonKernel(
        name=f"Triton paste, {name}",
        entry="paste_kernel",
        threads=128,
        pixels=16 * 32 * 3,
        # Loops over polygons, their chunks by rows and columns, and vertices; before that over colours, by fours.
        turns=(1, *((0, 3, 0, 3) if options else ()), 1, 2, 3, 5),
        least_bytes=2 * bytes_of_pixel + 4 / 3,
        module="twostage_kernels.triton_gpu.device.paste_kernel",
        function="paste_kernel",
        signature={**pointers, **(optional if options else {}), **sizes, **wide},
        constants={
            "image_index": None,
            "column_stride": 1,
            **({} if options else dict.fromkeys(optional)),
            "GROUP": 3,
            "ROWS": 16,
            "COLUMNS": 32,
            "CHUNK_ROWS": 16,
            "CHUNK_COLUMNS": 16,
            "LANES": 8,
            "IN_PLACE": in_place,
        },
        types={"OFFSET": "int32", "INDEX": "int32", "TYPE": "fp32"},
        aligned=("target", "out", "opacity", "width", *strides),
        registers={80: 255, 90: 255 if options else 168},
        fused=False,
    )


def _triton_features(variant: str, *, gradient: bool) -> TritonKernel:
    """Of 64 channels: here a pixel is a channel of a position."""
    outputs = {"upstream": "*fp32", "gradient": "*fp32"} if gradient else {"distance": "*fp32"}
    absent = ("distance",) if gradient else ("upstream", "gradient")
    channels, positions = 64, 32
    return TritonKernel(
        name=f"Triton feature_distance, {variant}",
        entry="feature_kernel",
        threads=128,
        pixels=positions * channels,
        least_bytes=(12 if gradient else 8) + 4 / channels,
        module="twostage_kernels.triton_gpu.device.features",
        function="feature_kernel",
        signature={
            **dict.fromkeys(("prediction", "target", "weights"), "*fp32"),
            **outputs,
            "positions": "i32",
        },
        constants={**dict.fromkeys(absent), "CHANNELS": channels, "POSITIONS": positions, "BLOCK": channels},
        types={"TYPE": "fp32"},
        aligned=("prediction", "target", *(("gradient",) if gradient else ())),
    )


_THIRD = {80: 168, 90: 168}
_TRITON = (
    _triton_similarity("additive loss with gradient", "additive", gradient=True, registers=_THIRD),
    _triton_similarity("ssim loss with gradient", "product", gradient=True, registers=_THIRD),
    _triton_similarity("map", "additive", gradient=False, registers=_THIRD),
    _triton_similarity(
        "masked loss with gradient", "additive", gradient=True, masked=True, mean=(35, 0, 35, 0), registers={}
    ),
    TritonKernel(
        # The one program that adds what 256 x 3 x 128 x 128 pixels came to.
        name="Triton similarity, sum of its parts",
        entry="reduce_kernel",
        threads=128,
        pixels=256 * 3 * 128 * 128,
        turns=(1,),
        least_bytes=16 / (128 * 128),
        module="twostage_kernels.triton_gpu.device.reduction",
        function="reduce_kernel",
        signature={
            "sums": "*fp64",
            "value": "*fp32",
            "samples": "i32",
            "strips_of_sample": "i32",
            **dict.fromkeys(("highest", "window_scale", "pixel_scale", "l1_weight", "l1_unit"), "i64"),
        },
        constants={"scales": None, "MASKED": False, "SAMPLE": False, "LOSS": True, "BLOCK": 1024},
        types={"TYPE": "fp32"},
    ),
    TritonKernel(
        name="Triton similarity, scaling of a gradient",
        entry="rescale_kernel",
        threads=128,
        pixels=1024,
        least_bytes=8,
        module="twostage_kernels.triton_gpu.device.reduction",
        function="rescale_kernel",
        signature={
            "gradient": "*fp32",
            "factor": "*fp32",
            "elements_of_sample": "i32",
            "blocks_of_sample": "i32",
        },
        constants={"SAMPLE": False, "BLOCK": 1024},
    ),
    _triton_paste("float32, a touched tile", pixel="fp32"),
    _triton_paste("bytes in place, a touched tile", pixel="u8", in_place=True),
    _triton_paste("every option, a touched tile", pixel="fp32", options=True),
    _triton_features("the distance", gradient=False),
    _triton_features("the gradient", gradient=True),
)
KERNELS: tuple[CudaKernel | TritonKernel, ...] = (*_SIMILARITY, *_PASTE, *_TRITON)
