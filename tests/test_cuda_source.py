"""The CUDA similarity kernels, run on the CPU as C++ with real threads, against the reference in float64."""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cuda_source import CUDA, build, run
from similarity_cases import assert_close, assert_gradient_close, numeric_pairs
from torch import Tensor

from twostage_kernels.coverage import mask_scales
from twostage_kernels.reference.aw_ssim import COMMON_NOISE_VARIANCE
from twostage_kernels.reference.similarity import similarity as reference
from twostage_kernels.settings import Settings

SOURCES = ("similarity.cu", "strips_float.cu", "strips_double.cu", "rescale.cu")
TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
REDUCTIONS = {"mean": 0, "sample": 1, "loss": 2, "none": 3}
ADDITIVE, PRODUCT, CONTRAST_STRUCTURE = 0, 1, 2
UNEVEN = (0.2, 0.5, 0.3)


@dataclass(frozen=True)
class Case:
    """One call of the kernels. ``upstream`` is what the map's derivative is weighted by."""

    x: Tensor
    y: Tensor
    form: int = ADDITIVE
    sigma: tuple[float, ...] | float = 1.5
    window_size: int = 11
    padding: str = "valid"
    reduction: str = "mean"
    gradients: tuple[bool, bool] = (True, False)
    mask: Tensor | None = None
    upstream: Tensor | None = None
    l1_weight: float = 0.0
    data_range: float = 1.0
    multiprocessors: int = 1
    shared_bytes: int = 99 * 1024

    def settings(self, dtype: torch.dtype) -> Settings:
        sigma = torch.as_tensor(self.sigma, dtype=torch.float32).to(dtype).expand(len(self.x))
        mask = None if self.mask is None else self.mask.to(dtype)
        weights = UNEVEN if self.form == ADDITIVE else None
        luminance = self.form != CONTRAST_STRUCTURE
        return Settings(
            sigma, mask, weights, luminance, self.window_size, self.data_range, 0.01, 0.03, self.padding, self.l1_weight
        )

    @property
    def has_value(self) -> bool:
        return self.reduction != "none"

    @property
    def has_map(self) -> bool:
        return self.reduction == "none" and self.upstream is None

    @property
    def map_shape(self) -> tuple[int, ...]:
        cut = 0 if self.padding == "same" else self.window_size - 1
        return (*self.x.shape[:2], self.x.shape[2] - cut, self.x.shape[3] - cut)

    @property
    def sum_dtype(self) -> torch.dtype:
        return torch.float64 if self.x.dtype == torch.float64 else torch.float32


def raw(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes() if tensor.dtype != torch.bfloat16 else tensor.view(torch.int16).numpy().tobytes()


def packed(case: Case) -> bytes:
    dtype = case.sum_dtype
    settings = case.settings(dtype)
    scales = mask_scales(case.x, settings, case.reduction) if case.has_value else None
    wishes = case.gradients if not case.has_map else (False, False)
    options = (case.mask, scales, case.upstream)
    flags = (*(tensor is not None for tensor in options), case.has_value, case.has_map, *wishes)
    integers = (
        *(*case.x.shape, case.window_size, case.padding == "same", case.form, TYPES[case.x.dtype]),
        *(REDUCTIONS[case.reduction], *flags, case.multiprocessors, case.shared_bytes),
    )
    weights = UNEVEN if case.form == ADDITIVE else (0.0, 0.0, 0.0)
    span = case.data_range
    constants = ((0.01 * span) ** 2, (0.03 * span) ** 2, COMMON_NOISE_VARIANCE * span**2, case.l1_weight, span)
    tensors = [
        case.x,
        case.y,
        *(t.to(dtype) for t in (settings.sigma, settings.mask, scales, case.upstream) if t is not None),
    ]
    return struct.pack("<18q8d", *integers, *weights, *constants) + b"".join(map(raw, tensors))


def unpacked(case: Case, answer: bytes, at: int) -> tuple[list[Tensor | None], int]:
    """Value or map, then both gradients, with None for what was not wanted."""
    batch = len(case.x)
    shapes: list[tuple[int, ...] | None] = [
        case.map_shape
        if case.has_map
        else None
        if not case.has_value
        else (batch,)
        if case.reduction == "sample"
        else ()
    ]
    shapes += [tuple(case.x.shape) if wanted and not case.has_map else None for wanted in case.gradients]
    results: list[Tensor | None] = []
    for shape in shapes:
        if shape is None:
            results.append(None)
            continue
        count = int(torch.Size(shape).numel())
        size = count * case.sum_dtype.itemsize
        numbers = struct.unpack(f"<{count}{'d' if case.sum_dtype == torch.float64 else 'f'}", answer[at : at + size])
        results.append(torch.tensor(numbers, dtype=case.sum_dtype).view(shape))
        at += size
    return results, at


def computed(program: Path, cases: Sequence[Case]) -> list[list[Tensor | None]]:
    answer = run(program, b"".join(map(packed, cases)))
    results, at = [], 0
    for case in cases:
        result, at = unpacked(case, answer, at)
        results.append(result)
    assert at == len(answer)
    return results


def expected(case: Case) -> list[Tensor]:
    x, y = (image.double().requires_grad_() for image in (case.x, case.y))
    value = reference(x, y, case.settings(torch.float64), case.reduction)
    upstream = torch.ones_like(value) if case.upstream is None else case.upstream.double()
    return [value.detach(), *torch.autograd.grad(value, (x, y), upstream)]


def assert_right(case: Case, got: Sequence[Tensor | None]) -> None:
    truth = expected(case)
    dtype = case.x.dtype if case.x.dtype == torch.float64 else torch.float32
    if got[0] is not None:
        name = "similarity value" if case.mask is None else "masked value"
        if case.window_size == 3 or 1 in case.x.shape[2:]:
            name = "streamed value, few pixels"
        assert_close(got[0], truth[0], name, dtype)
    windows = int(torch.Size(case.map_shape).numel())
    if case.mask is not None:
        windows = int(windows * case.mask.float().mean()) + 1
    if case.reduction == "sample":
        windows //= len(case.x)
    if case.upstream is not None:
        windows = 1
    for gradient, exact in zip(got[1:], truth[1:], strict=True):
        if gradient is not None:
            name = "similarity gradient" if case.mask is None else "masked gradient"
            assert_gradient_close(gradient, exact, windows * case.data_range, dtype, name)


def images(*shape: int, seed: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    y = 0.4 * x + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def blotched_mask(*shape: int) -> Tensor:
    """Hidden, half visible and visible blocks, and a hidden area larger than a window."""
    generator = torch.Generator().manual_seed(9)
    batch, height, width = shape[0], shape[2], shape[3]
    blocks = torch.randint(0, 4, (batch, 1, height // 4 + 1, width // 4 + 1), generator=generator).clamp(max=2) / 2
    mask = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, :height, :width].clone()
    mask[:, :, : height // 2, width // 3 :] = 0
    return mask


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cuda"), "cuda_similarity.cpp", SOURCES)


# (shape, window_size, padding)
SHAPES = {
    "one window": ((1, 1, 11, 11), 11, "valid"),
    "odd sizes": ((2, 3, 17, 29), 11, "valid"),
    "padded": ((1, 2, 12, 41), 11, "same"),
    "several strips and segments": ((1, 1, 70, 133), 11, "valid"),
    "several strips and segments, padded": ((1, 1, 70, 134), 11, "same"),
    "one row": ((2, 1, 1, 19), 11, "same"),
    "one column": ((2, 1, 19, 1), 11, "same"),
    "smaller than the window": ((1, 2, 3, 4), 11, "same"),
    "one pixel": ((1, 1, 1, 1), 11, "same"),
    "window of 7": ((2, 2, 9, 18), 7, "valid"),
    "window of 3": ((1, 2, 20, 37), 3, "same"),
}


def cases_of_shape(shape: tuple[int, ...], window_size: int, padding: str, dtype: torch.dtype) -> list[Case]:
    """Every kernel: both forms, with and without gradients and mask, for the value, the map and the map's backward."""
    x, y = images(*shape, dtype=dtype)
    sigma = tuple(torch.linspace(1.0, 3.0, shape[0]).tolist())
    base = Case(x, y, sigma=sigma, window_size=window_size, padding=padding, multiprocessors=40)
    mask = blotched_mask(*shape)
    upstream = torch.linspace(-2, 3, int(torch.Size(base.map_shape).numel()), dtype=dtype).view(base.map_shape)
    cases = [
        replace(base, reduction="none", form=CONTRAST_STRUCTURE),
        replace(base, gradients=(False, True), form=CONTRAST_STRUCTURE),
        replace(base, gradients=(False, False), multiprocessors=1),
    ]
    for form in (ADDITIVE, PRODUCT):
        case = replace(base, form=form)
        cases += [
            replace(case, reduction="none"),
            replace(case, gradients=(True, True), multiprocessors=1),
            replace(case, reduction="loss", l1_weight=0.3, gradients=(False, True)),
            replace(case, reduction="none", upstream=upstream),
        ]
        if window_size > 3:  # a window that sees a pixel or two knows its variance to no digit worth comparing
            cases += [
                replace(case, reduction="sample", mask=mask),
                replace(case, reduction="loss", l1_weight=0.4, mask=mask, gradients=(False, False)),
                replace(case, reduction="none", upstream=upstream, mask=mask, gradients=(True, True)),
            ]
    return cases


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_reference(program: Path, name: str, dtype: torch.dtype) -> None:
    cases = cases_of_shape(*SHAPES[name], dtype)
    for case, got in zip(cases, computed(program, cases), strict=True):
        assert_right(case, got)


def test_a_multiprocessor_with_little_shared_memory_gets_narrower_strips(program: Path) -> None:
    x, y = images(1, 1, 14, 300)
    (got,) = computed(program, [case := Case(x, y, padding="same", shared_bytes=20 * 1024)])
    assert_right(case, got)


@pytest.mark.parametrize("sigma", [0.4, 0.5])
def test_a_window_of_few_pixels_keeps_its_digits(program: Path, sigma: float) -> None:
    x, y = images(1, 1, 30, 45)
    for form in (ADDITIVE, PRODUCT):
        map_case = Case(x, y, form=form, sigma=sigma, reduction="none")
        mean_case = Case(x, y, form=form, sigma=sigma)
        scores, mean = computed(program, [map_case, mean_case])
        assert scores[0] is not None
        assert_close(scores[0], expected(map_case)[0], "streamed value, few pixels", torch.float32)
        assert mean[1] is not None
        truth, windows = expected(mean_case)[1], scores[0].numel()
        assert_gradient_close(mean[1], truth, windows, torch.float32, "streamed gradient, few pixels")


@pytest.mark.parametrize("name", numeric_pairs())
@pytest.mark.parametrize("form", [ADDITIVE, PRODUCT])
def test_digits_that_float32_could_lose_are_kept(program: Path, name: str, form: int) -> None:
    pair = numeric_pairs()[name]
    case = Case(pair.x, pair.y, form=form, data_range=pair.data_range, gradients=(True, True))
    (value, *gradients), (scores, *_) = computed(program, [case, replace(case, reduction="none")])
    truth = expected(case)
    assert value is not None
    assert scores is not None
    assert_close(value, truth[0], "similarity value", torch.float32)
    assert_close(scores, expected(replace(case, reduction="none"))[0], "similarity value", torch.float32)
    # One image's variance is 0 to rounding, the other's is not.
    uneven = name in ("flat and textured", "black and textured", "tiny range")
    bound = "fused gradient, flat beside textured" if uneven else "similarity gradient"
    for gradient, exact in zip(gradients, truth[1:], strict=True):
        assert gradient is not None
        assert_gradient_close(gradient, exact, scores.numel() * pair.data_range, torch.float32, bound)


def test_a_flat_area_beside_a_hard_edge_keeps_its_digits(program: Path) -> None:
    _, y = images(1, 1, 60, 50)
    x = torch.full_like(y, 0.1)
    x[:, :, 20:40] = 0.9
    x[:, :, :, 30:] += 0.05
    for form in (ADDITIVE, PRODUCT):
        case = Case(x, y, form=form, multiprocessors=40)
        scores, mean = computed(program, [replace(case, reduction="none"), case])
        assert scores[0] is not None
        truth = expected(replace(case, reduction="none"))[0]
        assert_close(scores[0], truth, "streamed value, few pixels", torch.float32)
        assert_right(case, mean)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_exactly(program: Path, dtype: torch.dtype) -> None:
    x, y = (image.to(dtype) for image in images(2, 1, 15, 22))
    x[0, 0, 0, :4] = torch.tensor([0.0, -0.0, 6e-8, 1e-5])  # zeros and, in float16, subnormal numbers
    case = Case(x, y, gradients=(True, True), reduction="sample")
    half, single = computed(program, [case, replace(case, x=x.float(), y=y.float())])
    for got, wanted in zip(half, single, strict=True):
        assert got is not None
        assert wanted is not None
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("special", [float("inf"), float("nan")])
def test_numbers_that_are_none_spoil_their_own_windows_only(program: Path, special: float) -> None:
    x, y = images(1, 1, 40, 40)
    x[0, 0, 20, 20] = special
    rows = torch.arange(30)
    covers = (rows >= 10) & (rows <= 20)
    pixels = torch.arange(40)
    reached = (pixels >= 10) & (pixels <= 30)
    for form in (ADDITIVE, PRODUCT):
        scores, gradients = computed(program, [Case(x, y, form=form, reduction="none"), Case(x, y, form=form)])
        assert scores[0] is not None
        assert gradients[1] is not None
        assert torch.equal(scores[0].isnan()[0, 0], covers.unsqueeze(1) & covers)
        assert torch.equal(gradients[1].isnan()[0, 0], reached.unsqueeze(1) & reached)


def test_what_is_hidden_changes_no_bit(program: Path) -> None:
    x, y = images(2, 2, 30, 41)
    mask = blotched_mask(2, 2, 30, 41)
    hidden = (mask == 0).expand_as(x)
    for form in (ADDITIVE, PRODUCT):
        case = Case(x, y, form=form, mask=mask, gradients=(True, True), reduction="loss", l1_weight=0.2)
        spoilt = replace(case, x=x.masked_fill(hidden, float("nan")), y=y.masked_fill(hidden, -1e30))
        before, after = computed(program, [case, spoilt])
        for a, b in zip(before, after, strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a, b)
        assert before[1] is not None
        assert int((before[1] * hidden).count_nonzero()) == 0


def test_the_same_inputs_give_the_same_bits(program: Path) -> None:
    x, y = images(2, 3, 50, 37)
    case = Case(x, y, gradients=(True, True), multiprocessors=40)
    first, second = computed(program, [case, case])
    for a, b in zip(first, second, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


def test_the_mean_of_an_empty_batch_is_nan(program: Path) -> None:
    x = torch.empty(0, 2, 12, 13)
    ((value, *_),) = computed(program, [Case(x, x)])
    assert value is not None
    assert bool(value.isnan())
    ((value, *_),) = computed(program, [Case(x, x, reduction="sample")])
    assert value is not None
    assert value.shape == (0,)


def test_cuts_errors_and_rescaling(program: Path) -> None:
    run(program, b"", "checks")


@pytest.mark.parametrize("architecture", [80, 90])
def test_registers_hold_what_the_kernels_keep(tmp_path: Path, architecture: int) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the path")
    command = [nvcc, "-std=c++17", "-O3", "-ftz=true", f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v"]
    command += ["-o", str(tmp_path / "kernels.cubin"), str(CUDA / "strips_float.cu")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    spilled = [int(bytes_) for bytes_ in re.findall(r"(\d+) bytes spill stores", process.stderr)]
    assert len(spilled) == 8
    assert max(spilled) <= 16  # a few words of the hundreds that are kept


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_no_bad_index_and_no_missing_barrier(tmp_path: Path, sanitizer: str) -> None:
    if not os.environ.get("TWOSTAGE_TEST_SANITIZERS"):
        pytest.skip("TWOSTAGE_TEST_SANITIZERS is not set: building and running with sanitizers takes half a minute")
    program = build(tmp_path, "cuda_similarity.cpp", SOURCES, sanitizer)
    run(program, b"", "checks")
    checked = {
        torch.float32: ("odd sizes", "several strips and segments, padded", "one column"),
        torch.float64: ("padded",),
    }
    for dtype, names in checked.items():
        for name in names:
            cases = cases_of_shape(*SHAPES[name], dtype)
            for case, got in zip(cases, computed(program, cases), strict=True):
                assert_right(case, got)
