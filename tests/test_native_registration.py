"""The operators as torch sees them: checks of their registration, compilation, threads, second derivatives."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import twostage_kernels
from twostage_kernels import aw_ssim, aw_ssim_loss, native, ssim
from twostage_kernels.functional.similarity import Reduction
from twostage_kernels.native.extension import extension
from twostage_kernels.native.openmp import team_starter

if native.unavailable:
    pytest.skip(f"no native backend: {native.unavailable}", allow_module_level=True)

KERNELS = Path(twostage_kernels.__file__).parent.parent


def image_pair(*shape: int, requires_grad: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(shape, generator=generator, dtype=dtype).requires_grad_(requires_grad) for _ in range(2))
    return x, y


def operator_settings(weights: list[float] | None, *, masked: bool) -> tuple[Any, ...]:
    mask = torch.ones(2, 1, 14, 15).tril() if masked else None
    return (torch.tensor([1.5, 0.7]), mask, weights, True, 11, 1.0, 0.01, 0.03, "valid", 0.25)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weights", [[0.2, 0.5, 0.3], None])
@pytest.mark.parametrize("arguments", [("mean", True, True), ("sample", True, True), ("loss", False, False)], ids=str)
def test_reduced_operator_is_registered_well(
    weights: list[float] | None, arguments: tuple[Any, ...], masked: bool
) -> None:
    images = image_pair(2, 1, 14, 15, requires_grad=arguments[1])
    settings = operator_settings(weights, masked=masked)
    torch.library.opcheck(torch.ops.twostage_kernels.native_similarity.default, (*images, *settings, *arguments))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weights", [[0.2, 0.5, 0.3], None])
def test_map_operators_are_registered_well(weights: list[float] | None, masked: bool) -> None:
    images = image_pair(2, 1, 14, 15, requires_grad=True)
    settings = operator_settings(weights, masked=masked)
    torch.library.opcheck(torch.ops.twostage_kernels.native_similarity_map.default, (*images, *settings))
    upstream = torch.ones(2, 1, 4, 5)
    plain = [image.detach() for image in images]
    backward = torch.ops.twostage_kernels.native_similarity_map_backward.default
    torch.library.opcheck(backward, (upstream, *plain, *settings, True, True))


@pytest.mark.parametrize("reduction", ["mean", "sample", "none"])
@pytest.mark.parametrize("function", [aw_ssim, ssim])
def test_compiled_is_eager_and_sigma_never_recompiles(function: Callable[..., Tensor], reduction: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")

    def double_score(x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
        return 2 * function(x, y, sigma=sigma, reduction=reduction)

    torch.compiler.reset()
    compiled = torch.compile(double_score, fullgraph=True, backend=counter)
    images = image_pair(2, 1, 16, 17, requires_grad=True)
    for sigma in (torch.tensor(1.5), torch.tensor(0.5), torch.tensor(2.5)):
        eager, got = double_score(*images, sigma), compiled(*images, sigma)
        assert torch.equal(eager, got)
        for a, b in zip(torch.autograd.grad(eager.sum(), images), torch.autograd.grad(got.sum(), images), strict=True):
            assert torch.equal(a, b)
    assert counter.frame_count == 1


@pytest.mark.parametrize("reduction", ["mean", "sample", "none"])
def test_second_derivative_raises(reduction: Reduction) -> None:
    x, y = image_pair(1, 1, 12, 12, requires_grad=True)
    value = aw_ssim(x, y, reduction=reduction, backend="native").sum()
    for image in (x, y):
        (gradient,) = torch.autograd.grad(value, image, create_graph=True, retain_graph=True)
        with pytest.raises(RuntimeError, match="differentiated only once"):
            torch.autograd.grad(gradient.square().sum(), x, retain_graph=True)


def test_repeated_backward_accumulates() -> None:
    x, y = image_pair(1, 1, 12, 12)
    (once,) = torch.autograd.grad(aw_ssim_loss(x.requires_grad_(), y, backend="native"), x)
    loss = aw_ssim_loss(x, y, backend="native")
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 3 * once, rtol=1e-6, atol=0)


def test_gradcheck() -> None:
    images = image_pair(2, 1, 12, 13, dtype=torch.float64, requires_grad=True)
    for function in (aw_ssim, ssim):
        for reduction in ("mean", "sample", "none"):
            assert torch.autograd.gradcheck(
                lambda x, y, f=function, r=reduction: f(x, y, reduction=r, backend="native"), images, atol=1e-6
            )


def test_autocast_lowers_no_precision() -> None:
    images = image_pair(1, 1, 20, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = aw_ssim(*images, backend="native")
    assert torch.equal(inside, aw_ssim(*images, backend="native"))


def results(images: tuple[Tensor, Tensor]) -> list[Tensor]:
    x = images[0].detach().requires_grad_()
    value = aw_ssim(x, images[1], reduction="sample", backend="native")
    return [value.detach(), *torch.autograd.grad(value.sum(), x), aw_ssim(*images, reduction="none", backend="native")]


def test_same_bits_in_every_run_and_on_any_number_of_threads() -> None:
    images = image_pair(2, 2, 530, 300)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2, 5):
            torch.set_num_threads(count)
            runs.append(results(images))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_calls_at_once_do_not_disturb_each_other() -> None:
    pairs = [image_pair(1, 1, 300 + 7 * index, 200) for index in range(4)]
    alone = [results(pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for got, wanted in zip(pool.map(results, pairs), alone, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_second_backward_through_a_freed_graph_raises() -> None:
    x, y = image_pair(1, 1, 16, 16, requires_grad=True)
    loss = aw_ssim_loss(x, y)
    loss.backward()
    assert x.grad is not None
    before = x.grad.clone()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()
    assert torch.equal(x.grad, before)


def test_a_tensor_that_outlived_its_transform_is_an_image_like_others() -> None:
    image, target = image_pair(1, 1, 16, 16)
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x * 1)
        return x.sum()

    torch.func.grad(keep)(image)
    assert torch.equal(ssim(kept[0], target), ssim(image, target))


def test_pool_of_our_own_gives_the_bits_of_torchs_threads() -> None:
    assert extension is not None
    images = image_pair(2, 2, 300, 300)
    on_teams = results(images)
    try:
        extension.use_teams(0)
        for run in (results(images), results(images)):
            assert all(torch.equal(a, b) for a, b in zip(run, on_teams, strict=True))
    finally:
        extension.use_teams(team_starter() or 0)


@pytest.mark.skipif(team_starter() is None, reason="torch has no OpenMP here")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not list a process's threads")
def test_no_thread_is_started_beside_those_of_torch() -> None:
    script = """
import os, torch
from twostage_kernels import aw_ssim
torch.set_num_threads(3)
images = torch.rand(2, 4, 1, 300, 300)
images + 1
before = len(os.listdir("/proc/self/task"))
aw_ssim(*images)
print(before, len(os.listdir("/proc/self/task")))
"""
    before, after = map(int, run_python(script).split())
    assert after == before >= 3


def run_python(script: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(KERNELS)}, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_works_after_a_fork() -> None:
    script = """
import os, torch
from twostage_kernels import aw_ssim
torch.set_num_threads(2)
images = torch.rand(2, 4, 1, 300, 300)
before = aw_ssim(*images)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(aw_ssim(*images), before) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    run_python(script)


def test_without_the_extension_the_reference_runs_and_says_why() -> None:
    script = """
import sys
sys.modules["twostage_kernels._extension"] = None
import torch, twostage_kernels
assert twostage_kernels.available_backends("aw_ssim") == ("reference",)
twostage_kernels.aw_ssim(torch.rand(1, 1, 11, 11), torch.rand(1, 1, 11, 11))
try:
    twostage_kernels.aw_ssim(torch.rand(1, 1, 11, 11), torch.rand(1, 1, 11, 11), backend="native")
except RuntimeError as error:
    print(error)
"""
    assert "built without its C++ extension" in run_python(script)


def test_report_of_what_is_available() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "twostage_kernels"],
        env={"PYTHONPATH": str(KERNELS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "aw_ssim on cpu: native, reference" in process.stdout
    assert "no triton: " in process.stdout
    assert f"CPU threads of the extension: {native.threads()}" in process.stdout
    for name in native.instruction_sets():
        assert name in process.stdout
