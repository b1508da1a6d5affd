"""The Triton kernel of ``feature_distance``: interpreted, compiled ahead of time, and on a GPU where there is one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from feature_cases import DTYPES, SHAPES, assert_agrees, features
from triton_cases import compile_kernel, compiled, resources, run_interpreted, with_triton

from twostage_kernels import feature_distance, triton_gpu

on_gpu = pytest.mark.skipif(
    triton_gpu.why_not_on_cuda() is not None, reason=f"no Triton on a GPU: {triton_gpu.why_not_on_cuda()}"
)


@with_triton
def test_in_the_interpreter() -> None:
    run_interpreted("interpreted_triton_features.py")


def compile_features(architecture: int, channels: int, dtype: str, number: torch.dtype, *, backward: bool) -> Any:
    from twostage_kernels.triton_gpu.device.features import feature_kernel
    from twostage_kernels.triton_gpu.feature_launch import constants_of_kernel

    constants = constants_of_kernel(channels, number)
    absent = ("distance",) if backward else ("upstream", "gradient")
    sums = "fp64" if number == torch.float64 else "fp32"
    pointers = dict.fromkeys(("prediction", "target", "gradient"), dtype)
    pointers |= dict.fromkeys(("weights", "distance", "upstream"), sums)
    constants |= dict.fromkeys(absent)
    aligned = [name for name in ("prediction", "target", "gradient") if name not in absent]
    return compile_kernel(feature_kernel, architecture, pointers, constants, aligned)


@with_triton
@compiled
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(64, "fp32"), (192, "bf16"), (384, "bf16"), (256, "fp16"), (3, "fp32")]
)
def test_compiles_without_spilling(
    architecture: int, backward: bool, channels: int, dtype: str, tmp_path: Path
) -> None:
    kernel = compile_features(architecture, channels, dtype, torch.float32, backward=backward)
    used = resources(kernel, tmp_path)
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    if architecture >= 90:
        assert used["REG"] <= 128
    if channels >= 64:  # a thread's neighbouring channels in one load of 16 bytes
        assert "ld.global.v4.b32" in kernel.asm["ptx"]


@with_triton
@compiled
def test_float64_compiles(tmp_path: Path) -> None:
    kernel = compile_features(90, 64, "fp64", torch.float64, backward=True)
    assert resources(kernel, tmp_path)["STACK"] == 0


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_gpu_agrees_with_the_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_agrees("triton", *(tensor.cuda() for tensor in features(shape, dtype)))


@on_gpu
def test_a_graph_replays_it() -> None:
    x, y, weights = (tensor.cuda() for tensor in features((2, 64, 31, 31), torch.float32))
    x.requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        distance = feature_distance(x, y, weights, backend="triton")
        (gradient,) = torch.autograd.grad(distance.sum(), x)
        return distance.detach(), gradient

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    with torch.no_grad():
        x.mul_(torch.rand_like(x))
    graph.replay()
    for got, wanted in zip(recorded, step(), strict=True):
        assert torch.equal(got, wanted)
