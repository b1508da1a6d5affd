"""The Triton kernels without a GPU: interpreted, compiled ahead of time, and the plan by which images are cut."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from triton_cases import INTERPRETED, compile_kernel, compiled, resources, run_interpreted, with_triton

import twostage_kernels
from twostage_kernels import triton_gpu
from twostage_kernels.backends import why_unavailable
from twostage_kernels.settings import Settings
from twostage_kernels.triton_gpu.plan import Plan, fastest_plan, interpreted_plan

KERNELS = Path(twostage_kernels.__file__).parent.parent


@with_triton
def test_in_the_interpreter() -> None:
    run_interpreted("interpreted_triton.py")


# --- compiled ahead of time ----------------------------------------------------------------------------------------

_POINTERS = {
    "prediction": "image",
    "target": "image",
    "sigma": "sum",
    "mask": "sum",
    "scales": "sum",
    "upstream": "sum",
    "scores": "sum",
    "gradient_x": "sum",
    "gradient_y": "sum",
    "sums": "fp64",
    "scratch": "sum",
}


def settings_for(dtype: torch.dtype, masked: bool, weights: tuple[float, float, float] | None, taps: int) -> Settings:
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    mask = torch.ones(1, 1, 64, 64, dtype=sums) if masked else None
    return Settings(torch.ones(1, dtype=sums), mask, weights, True, taps, 1.0, 0.01, 0.03, "valid", 0.0)


def compile_similarity(architecture: int, settings: Settings, images: torch.dtype, gradients: int, kind: str) -> Any:
    """The kernel for images of 512 x 512; ``kind`` is what it makes beside gradients: "value", "map" or nothing."""
    from twostage_kernels.triton_gpu.device.stream import similarity_kernel
    from twostage_kernels.triton_gpu.launch import constants_of_kernel

    masked = settings.mask is not None
    half = settings.window_size // 2
    plan = fastest_plan(48, 512, 512, half, gradients > 0, False, masked, 132)
    constants = constants_of_kernel(
        settings,
        images,
        plan,
        gradients,
        value=kind == "value",
        scores=kind == "map",
        upstream=kind == "",
        difference=kind == "value",
    )
    absent = {
        "mask": not masked,
        "scales": not (masked and kind == "value"),
        "upstream": kind != "",
        "scores": kind != "map",
        "gradient_x": gradients < 1,
        "gradient_y": gradients < 2,
        "sums": kind != "value",
    }
    types = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
    of_type = {"image": types[images], "sum": types[settings.sigma.dtype], "fp64": "fp64"}
    pointers = {name: of_type[kind] for name, kind in _POINTERS.items()}
    known = {**constants, **{name: None for name, missing in absent.items() if missing}}
    return compile_kernel(similarity_kernel, architecture, pointers, known, [])


@with_triton
@compiled
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "masked", "weights", "gradients", "kind", "registers"),
    [
        pytest.param(torch.float32, False, (0.2, 0.5, 0.3), 1, "value", 168, id="additive loss"),
        pytest.param(torch.float32, False, None, 1, "value", 168, id="ssim loss"),
        pytest.param(torch.float32, False, (0.2, 0.5, 0.3), 0, "map", 168, id="map"),
        pytest.param(torch.bfloat16, False, (0.2, 0.5, 0.3), 2, "", 255, id="backward of the map of bfloat16"),
        pytest.param(torch.float32, True, (0.2, 0.5, 0.3), 1, "value", 255, id="masked loss"),
    ],
)
def test_compiles_without_spilling(
    architecture: int,
    dtype: torch.dtype,
    masked: bool,
    weights: tuple[float, float, float] | None,
    gradients: int,
    kind: str,
    registers: int,
    tmp_path: Path,
) -> None:
    kernel = compile_similarity(architecture, settings_for(dtype, masked, weights, 11), dtype, gradients, kind)
    used = resources(kernel, tmp_path)
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    assert used["REG"] <= registers
    assert used["SHARED"] <= 2048
    # Neighbours' values come through scratch memory: none may be taken from the cache that does not see what other
    # threads write.
    assert "ld.global.nc" not in kernel.asm["ptx"]


@with_triton
@compiled
def test_no_number_and_no_size_asks_for_another_compilation() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    from twostage_kernels.triton_gpu.device.stream import similarity_kernel

    binder = create_function_from_signature(
        similarity_kernel.signature, similarity_kernel.params, make_backend(GPUTarget("cuda", 90, 32))
    )
    memory = torch.zeros(9)
    keys = []
    for size, bits, tensor in ((1, 0, memory), (16, 1, memory), (2**20, 2**62, memory[1:]), (37, -(2**62), memory[3:])):
        arguments = {
            name: tensor if name in _POINTERS else size if parameter.annotation == inspect.Parameter.empty else bits
            for name, parameter in similarity_kernel.signature.parameters.items()
        }
        _, key, _ = binder(**arguments)
        keys.append(
            [
                entry
                for entry, parameter in zip(key, similarity_kernel.params, strict=True)
                if not parameter.is_constexpr
            ]
        )
    assert all(key == keys[0] for key in keys)


# --- what there is and why not -------------------------------------------------------------------------------------


def test_the_reason_why_there_is_no_kernel() -> None:
    if not triton_gpu.is_installed():
        assert why_unavailable("ssim", "triton", "cuda") == "triton is not installed"
        assert why_unavailable("ssim", "triton", "cpu") == "triton is not installed"
    else:
        if not INTERPRETED:
            assert "interpreter" in str(why_unavailable("ssim", "triton", "cpu"))
        if not torch.cuda.is_available():
            assert why_unavailable("ssim", "triton", "cuda") == "torch sees no GPU"
    assert why_unavailable("ssim", "triton", "meta") == "it has no kernel for meta"


def test_works_without_triton_and_says_so() -> None:
    script = """
import sys
sys.modules["triton"] = None
import torch, twostage_kernels
assert "triton" not in twostage_kernels.available_backends("ssim", "cuda")
twostage_kernels.ssim(torch.rand(1, 1, 11, 11), torch.rand(1, 1, 11, 11))
try:
    twostage_kernels.ssim(torch.rand(1, 1, 11, 11), torch.rand(1, 1, 11, 11), backend="triton")
except RuntimeError as error:
    print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(KERNELS)}, capture_output=True, text=True, check=True
    )
    assert "backend 'triton' of ssim is not available on cpu: triton is not installed" in process.stdout


# --- the plan ------------------------------------------------------------------------------------------------------


def columns_of(plan: Plan, width: int, reach: int, left: int) -> list[tuple[range, range]]:
    """For each strip across, the columns that it reads and those that it owns, by the kernel's rule."""
    strips = []
    for across in range(plan.across):
        first = across * (plan.columns - 2 * reach) - left
        read = range(first, first + plan.columns)
        begin = max(first + (reach if across else 0), 0)
        end = width if across == plan.across - 1 else first + plan.columns - reach
        strips.append((read, range(begin, min(end, width))))
    return strips


@given(
    planes=st.integers(1, 3000),
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    half=st.integers(0, 10),
    gradients=st.booleans(),
    same=st.booleans(),
    masked=st.booleans(),
    multiprocessors=st.sampled_from([None, 1, 40, 132]),
)
def test_every_pixel_is_owned_once_and_all_it_needs_is_read(
    planes: int,
    height: int,
    width: int,
    half: int,
    gradients: bool,
    same: bool,
    masked: bool,
    multiprocessors: int | None,
) -> None:
    size = planes, height, width, half, gradients, same, masked
    plan = interpreted_plan(*size) if multiprocessors is None else fastest_plan(*size, multiprocessors)
    reach = 2 * half if gradients else half
    left = half if same and masked else 0
    owned: list[int] = []
    for read, own in columns_of(plan, width, reach, left):
        owned.extend(own)
        if len(own):
            # Beyond the image are only zeros, which need no thread; but with a mask they are seen.
            first, last = max(own[0] - reach, -left), min(own[-1] + reach, width - 1 + left)
            assert read[0] <= first
            assert last <= read[-1]
    assert owned == list(range(width))
    assert (plan.segments - 1) * plan.rows < height <= plan.segments * plan.rows
    first_needed = -reach if plan.segments > 1 else -half if same else 0
    last_needed = min(plan.rows, height) - 1 + reach + (1 if gradients else 0)
    assert plan.first_row <= first_needed
    assert plan.first_row + plan.stretches * plan.stretch > last_needed
    # A shift is taken from the image's first row.
    assert plan.first_row % plan.stretch == 0
