"""The CUDA paste kernels, run on the CPU as C++ with real threads, against the reference."""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_source import CUDA, build, run
from paste_cases import KITE, SQUARE, STAR, Points, any_batch, assert_pasted, defects, textured
from torch import Tensor

from twostage_kernels import paste_defects
from twostage_kernels.precision import sum_dtype

SOURCES = ("paste.cu", "paste_float.cu", "paste_double.cu")
TYPES = {torch.uint8: 0, torch.float16: 1, torch.bfloat16: 2, torch.float32: 3, torch.float64: 4}
# In the order of PastePolygons, and which of them hold integers.
VALUES = (
    *("vertices", "vertex_count", "image_index", "source_index", "transform", "blur_sigma", "strength"),
    *("color_gain", "color_offset", "blend_mode", "edge_amplitude", "edge_grain", "edge_seed"),
)
INTEGERS = ("vertex_count", "image_index", "source_index", "blend_mode", "edge_seed")
Arguments = dict[str, Any]
Results = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cuda_paste"), "cuda_paste.cpp", SOURCES)


def memory_of(images: Tensor) -> Tensor:
    """All that lies between an image's first element and its last."""
    elements = 1 + sum((size - 1) * stride for size, stride in zip(images.shape, images.stride(), strict=True))
    return images.as_strided((elements if images.numel() else 0,), (1,))


def raw(tensor: Tensor) -> bytes:
    # A single number that was expanded keeps its stride of 0 unless it is put together anew.
    return torch.cat((tensor.flatten(),)).view(torch.uint8).numpy().tobytes()


def packed(arguments: Arguments, in_place: bool) -> bytes:
    target: Tensor = arguments["target"]
    source: Tensor = arguments["source"]
    layout: Tensor | None = arguments.get("source_layout")
    memory, pool = memory_of(target), source if layout is not None else memory_of(source)
    low, high = arguments.get("value_range", (0.0, 255.0 if target.dtype == torch.uint8 else 1.0))
    header = (
        *(*target.shape, TYPES[target.dtype], TYPES[source.dtype], in_place, len(memory)),
        *((len(source), *source.shape[2:]) if layout is None else (len(layout), 0, 0)),
        *(len(pool), len(arguments["vertex_count"]), *target.stride()),
        *(source.stride() if layout is None else (0, 0, 0, 0)),
        *(layout is not None, arguments.get("image_index") is not None),
        *(
            arguments.get(name) is not None
            for name in ("strength", "color_gain", "color_offset", "blend_mode", "edge_seed")
        ),
    )
    values = [memory, pool] if layout is None else [memory, pool, layout.long()]
    for name in VALUES:
        tensor = arguments.get(name)
        if tensor is not None:
            values.append(tensor.long() if name in INTEGERS else tensor.to(sum_dtype(target)))
    return struct.pack(f"<{len(header)}q2d", *header, low, high) + b"".join(map(raw, values))


def computed(program: Path, cases: Sequence[Arguments], in_place: bool = False) -> list[Results]:
    answer = run(program, b"".join(packed(case, in_place) for case in cases))
    results, at = [], 0

    def take(count: int, dtype: torch.dtype) -> Tensor:
        nonlocal at
        taken = torch.frombuffer(bytearray(answer[at : at + count * dtype.itemsize]), dtype=dtype)
        at += count * dtype.itemsize
        return taken

    for case in cases:
        target = case["target"]
        images = take(len(memory_of(target)), target.dtype).as_strided(target.shape, target.stride())
        batch, _, height, width = target.shape
        results.append((images, take(batch * height * width, sum_dtype(target)).view(batch, 1, height, width)))
    assert at == len(answer)
    return results


def assert_right(case: Arguments, got: Results) -> None:
    assert_pasted(case, *got)
    hard = (case["blur_sigma"] == 0) | (case["vertex_count"] == 0)
    if bool(hard.all()) and case.get("strength") is None:
        assert torch.equal(got[1], paste_defects(**case, backend="reference")[1])


SEEDS = 60
PER_RUN = 6


@pytest.mark.parametrize("first", range(0, SEEDS, PER_RUN))
def test_agrees_with_the_reference(program: Path, first: int) -> None:
    """Every option now and then; see any_batch."""
    cases = [any_batch(seed) for seed in range(first, first + PER_RUN)]
    for case, new, in_place in zip(cases, computed(program, cases), computed(program, cases, True), strict=True):
        assert_right(case, new)
        assert torch.equal(in_place[0], new[0])
        assert torch.equal(in_place[1], new[1])


def batch_of(*polygons: Points, size: tuple[int, int], image: list[int] | None = None, **values: Any) -> Arguments:
    """Polygons in float32 images of one size, one image each unless said otherwise."""
    owners = list(range(len(polygons))) if image is None else image
    described = defects(*polygons, image=owners, dtype=torch.float32, **values)
    arguments = {name: getattr(described, name) for name in described.__dataclass_fields__}
    images = max(owners) + 1
    return arguments | {
        "target": textured(images, 3, *size, seed=1).float(),
        "source": textured(2, 3, 23, 31, seed=2).float(),
    }


def as_type(arguments: Arguments, dtype: torch.dtype, memory: torch.memory_format, channels: int = 3) -> Arguments:
    changed = dict(arguments)
    for name in ("target", "source"):
        images = arguments[name].repeat(1, 2, 1, 1)[:, :channels]
        images = (255 * images).round() if dtype == torch.uint8 else images
        changed[name] = images.to(dtype).contiguous(memory_format=memory)
    return changed


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_whole_tiles_and_parts_of_them_in_every_type_and_layout(
    program: Path, dtype: torch.dtype, memory: torch.memory_format
) -> None:
    """Most tiles are not touched: some are copied in long pieces, those at the borders are not."""
    cases = []
    for channels in (1, 2, 3, 4, 5, 9):
        for size in ((64, 96), (70, 101)):
            case = batch_of(KITE, STAR, size=size, blur=[0.7, 0.0], transform=((0.9, 0.2, -1.0), (-0.3, 1.4, 2.0)))
            cases.append(as_type(case, dtype, memory, channels))
    for case, new, in_place in zip(cases, computed(program, cases), computed(program, cases, True), strict=True):
        assert_right(case, new)
        assert torch.equal(in_place[0], new[0])
        assert torch.equal(in_place[1], new[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_width_of_blur(program: Path, dtype: torch.dtype) -> None:
    sigmas = (0.0, 5e-4, 2e-3, 0.1, 1 / 3, 0.34, 1.0, 2.0, 5.3, 10.7, 21.3, 64.0)
    large: Points = [(-20.0, -9.0), (90.0, 20.0), (30.0, 70.0)]
    options: list[Arguments] = [{"size": (45, 70)}, {"size": (9, 130)}]
    cases = [
        as_type(batch_of(polygon, blur=sigma, **option), dtype, torch.contiguous_format)
        for sigma in sigmas
        for polygon in (KITE, large)
        for option in options
    ]
    for case, got in zip(cases, computed(program, cases), strict=True):
        assert_right(case, got)


def test_polygons_of_all_images_in_any_order(program: Path) -> None:
    """More polygons than a block looks at between two barriers, those of an image in their order."""
    generator = torch.Generator().manual_seed(4)
    count = 2300
    owners = torch.randint(1, 3, (count,), generator=generator)
    place = torch.rand(count, 1, 2, generator=generator) * 30
    corners = torch.tensor([[0.0, 0.0], [9.0, 1.0], [4.0, 8.0]])
    case = batch_of(SQUARE, size=(30, 34), image=[2], blur=0.6)
    for name in ("vertices", "vertex_count", "source_index", "transform", "blur_sigma"):
        case[name] = case[name].repeat(count, *[1] * (case[name].ndim - 1))
    case |= {"image_index": owners, "strength": 0.2 + 0.5 * torch.rand(count, generator=generator)}
    case["vertices"][:, :3] = place + corners
    case["vertex_count"][:] = 3
    case["vertex_count"][1:-40] = 0  # the reference takes the others one after the other
    ((images, opacity),) = computed(program, [case])
    assert_right(case, (images, opacity))
    assert torch.equal(images[0], case["target"][0])
    assert bool((opacity[1:] > 0).any(dim=3).any(dim=2).all())


def spoilt_polygons() -> dict[str, Callable[[Arguments, int], None]]:
    """Ways in which polygon ``i`` can be unusable."""

    def put(name: str, value: float) -> Callable[[Arguments, int], None]:
        def change(case: Arguments, i: int) -> None:
            case[name][i].view(-1)[-1] = value

        return change

    def vertex(value: float) -> Callable[[Arguments, int], None]:
        def change(case: Arguments, i: int) -> None:
            case["vertices"][i, 1, 0] = value

        return change

    nan, inf = float("nan"), float("inf")
    big = 2**62
    return {
        **{f"vertex {value}": vertex(value) for value in (nan, inf, -inf)},
        **{f"count {value}": put("vertex_count", value) for value in (-1, 1, 2, 8, big)},
        **{f"image {value}": put("image_index", value) for value in (-1, 3, big)},
        **{f"source {value}": put("source_index", value) for value in (-1, 4, big, -big)},
        **{
            f"{name} {value}": put(name, value)
            for name in ("transform", "color_gain", "color_offset")
            for value in (nan, inf)
        },
        **{f"sigma {value}": put("blur_sigma", value) for value in (nan, -0.1, 64.1, inf)},
        **{f"strength {value}": put("strength", value) for value in (nan, -0.1, 1.1)},
        **{f"mode {value}": put("blend_mode", value) for value in (-1, 6, big)},
        **{f"amplitude {value}": put("edge_amplitude", value) for value in (nan, -1.0, 65.0, inf)},
        **{f"grain {value}": put("edge_grain", value) for value in (nan, 0.5, inf)},
        **{f"layout {place}": put("source_index", place) for place in range(1, 4)},
    }


def test_what_cannot_be_pasted_is_left_out(program: Path) -> None:
    """Of three polygons the second is spoilt; an empty slot holds what would be unusable anywhere else."""
    polygons = [SQUARE, KITE, STAR, SQUARE]
    good = batch_of(*polygons, size=(40, 44), image=[0, 1, 1, 2], blur=[0.0, 1.1, 0.0, 0.4])
    planes = 3 * 23 * 31
    good |= {
        "source": good["source"].flatten(),
        # The first image, then some that do not lie within the source.
        "source_layout": torch.tensor([[0, 23, 31], [planes + 1, 23, 31], [-1, 2, 2], [0, 2**40, 2**40]]),
        "vertices": good["vertices"].clone(),
        "transform": good["transform"].clone(),
        "blur_sigma": good["blur_sigma"].clone(),
        "strength": torch.full((4,), 0.7),
        "color_gain": torch.full((4, 3), 0.9),
        "color_offset": torch.full((4, 3), 0.05),
        "blend_mode": torch.tensor([0, 1, 2, 0]),
        "edge_amplitude": torch.tensor([0.0, 2.0, 1.5, 0.0]),
        "edge_grain": torch.full((4,), 3.0),
        "edge_seed": torch.tensor([3, 4, 5, 6]),
    }
    for name in ("vertex_count", "image_index", "source_index"):
        good[name] = good[name].long()
    empty = copied(good)
    empty["vertex_count"][1] = 0
    for name, value in empty.items():
        if name not in ("target", "source", "source_layout", "vertex_count"):
            value[1] = float("nan") if value.is_floating_point() else -(2**60)
    cases = [empty]
    for spoil in spoilt_polygons().values():
        cases.append(copied(good))
        spoil(cases[-1], 1)
    (reference, *others), (whole,) = computed(program, cases), computed(program, [good])
    assert_right(good, whole)
    without = copied(good)
    without["vertex_count"][1] = 0
    assert_right(without, reference)
    assert not torch.equal(whole[1], reference[1])
    for name, got in zip(spoilt_polygons(), others, strict=True):
        assert torch.equal(got[0], reference[0]), name
        assert torch.equal(got[1], reference[1]), name


def copied(case: Arguments) -> Arguments:
    return {name: value.clone() for name, value in case.items()}


def test_positions_keep_their_digits_far_from_the_origin(program: Path) -> None:
    """And where the map is too steep for whole numbers."""
    wide: Points = [(5900.0, -1.0), (6001.0, -1.0), (6001.0, 9.0), (5900.0, 9.0)]
    cases = []
    for scale in (0.37, -3.1, 300.0, 3e6, 1e20):
        case = batch_of(
            wide, size=(5, 6001), blur=0.0, transform=((scale, 0.0, -5950 * scale), (0.1, scale / 100, 3.0))
        )
        case["source"] = textured(1, 3, 9, 4001, seed=3).float()
        cases.append(case)
    for case, got in zip(cases, computed(program, cases), strict=True):
        assert_right(case, got)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_and_long_edges_find_the_same_pixels(program: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    cases = []
    for power in (0, 1, 2, 6, 9, 20, 38):
        case = as_type(batch_of(*[SQUARE] * 4, size=(50, 70)), dtype, torch.contiguous_format)
        vertices = (torch.rand(4, 7, 2, generator=generator) - 0.3) * 10.0**power
        vertices[:, ::2] = 64 * torch.rand(4, 4, 2, generator=generator)
        case |= {"vertices": vertices.to(dtype), "vertex_count": torch.tensor([3, 4, 6, 7]), "strength": None}
        cases.append(case)
        if power < 3:
            cases.append({**case, "edge_amplitude": torch.tensor([0.5, 4.0, 0.0, 60.0], dtype=dtype)})
            cases[-1] |= {"edge_grain": torch.tensor([1.0, 3.7, 2.0, 30.0], dtype=dtype)}
            cases[-1] |= {"edge_seed": torch.tensor([7, -(2**40), 0, 2**33 + 5])}
    covered = 0
    for case, got in zip(cases, computed(program, cases), strict=True):
        _, expected = paste_defects(**case, backend="reference")
        assert torch.equal(got[1], expected)
        covered += int(expected.sum())
    assert covered > 10000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_untouched_pixels_keep_their_bits_and_hidden_ones_are_not_read(program: Path, dtype: torch.dtype) -> None:
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    case = as_type(batch_of(SQUARE, KITE, size=(33, 64), blur=[0.0, 0.8]), dtype, torch.contiguous_format)
    case["target"][:, 0] = -0.0
    case["target"][:, 1].view(words)[...] = case["target"].new_tensor(float("nan")).view(words) + 5  # another NaN
    hidden = case["source"].clone()
    hidden[0, :, 18:] = float("nan")
    hidden[0, :, :, 20:] = float("inf")
    hidden[1] = float("nan")
    plain, spoilt = computed(program, [case, {**case, "source": hidden}])
    untouched = (plain[1] == 0).expand_as(plain[0])
    assert torch.equal(plain[0].view(words)[untouched], case["target"].view(words)[untouched])
    assert torch.equal(plain[0].view(words), spoilt[0].view(words))
    assert bool(plain[0][:, 2].isfinite().all())


def test_the_same_inputs_give_the_same_bits(program: Path) -> None:
    cases = [any_batch(seed) for seed in (3, 17, 29)]
    for first, second in zip(computed(program, cases), computed(program, cases), strict=True):
        assert raw(first[0]) == raw(second[0])
        assert raw(first[1]) == raw(second[1])


def test_errors_and_batches_of_many_images(program: Path) -> None:
    run(program, b"", "checks")


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("precision", ["float", "double"])
def test_registers_hold_what_the_kernels_keep(tmp_path: Path, architecture: int, precision: str) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the path")
    command = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v"]
    command += ["-o", str(tmp_path / "kernels.cubin"), str(CUDA / f"paste_{precision}.cu")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    spilled = re.findall(r"(\d+) bytes spill stores", process.stderr)
    assert spilled == ["0"] * (3 if precision == "float" else 1)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_no_bad_index_and_no_missing_barrier(tmp_path: Path, sanitizer: str) -> None:
    if not os.environ.get("TWOSTAGE_TEST_SANITIZERS"):
        pytest.skip("TWOSTAGE_TEST_SANITIZERS is not set: building and running with sanitizers takes a minute")
    checked = build(tmp_path, "cuda_paste.cpp", SOURCES, sanitizer)
    run(checked, b"", "checks")
    cases = [any_batch(seed) for seed in range(200, 216)]
    cases.append(batch_of(KITE, STAR, size=(33, 70), image=[0, 0], blur=[5.0, 0.0]))
    cases.append(as_type(batch_of(STAR, size=(20, 40), blur=64.0), torch.float64, torch.channels_last, 5))
    for in_place in (False, True):
        for case, got in zip(cases, computed(checked, cases, in_place), strict=True):
            assert_right(case, got)
