"""The Triton kernel of ``paste_defects`` in Triton's interpreter, on the CPU, against the reference.

test_triton_paste.py runs this file in a process of its own: Triton decides on import whether it interprets.
"""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paste_cases import any_batch, assert_images, assert_pasted, operands, textured
from poisoned import poisoned_memory  # noqa: F401
from torch import Tensor

from twostage_kernels import available_backends, paste_defects
from twostage_kernels.triton_gpu import paste_launch

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton_paste.py instead"

Arguments = dict[str, Any]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise most images are one tile, and what a blur reaches is one chunk."""
    monkeypatch.setattr(paste_launch, "INTERPRETED", paste_launch.Tiling(8, 16, 16, 16))


def assert_agrees(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """With the reference, the target left as it was; and in place the same bits."""
    target = arguments["target"]
    before = target.clone(memory_format=torch.preserve_format)
    images, opacity = paste_defects(**arguments, backend="triton")
    assert torch.equal(target, before)
    assert_pasted(arguments, images, opacity)
    in_place = paste_defects(**{**arguments, "target": before}, out=before, backend="triton")
    assert in_place[0] is before
    assert torch.equal(in_place[0], images)
    assert torch.equal(in_place[1], opacity)
    return images, opacity


def batch(height: int, width: int, *, channels: int = 3, dtype: torch.dtype = torch.float32) -> Arguments:
    """Two images, two polygons each, in slots; blurred, vertices in and outside of the image."""
    number = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(height + width)
    target, source = textured(2, channels, height, width, seed=1), textured(3, channels, 11, 9, seed=2)
    if dtype == torch.uint8:
        target, source = 255 * target, 255 * source
    size = torch.tensor([width, height], dtype=number)
    return {
        "target": target.to(dtype),
        "source": source.to(dtype),
        "vertices": (1.4 * torch.rand(4, 7, 2, generator=generator, dtype=number) - 0.2) * size,
        "vertex_count": torch.tensor([7, 3, 5, 4], dtype=torch.int32),
        "image_index": None,
        "source_index": torch.tensor([2, 0, 1, 1], dtype=torch.uint8),
        "transform": torch.rand(4, 2, 3, generator=generator, dtype=number) - 0.3,
        "blur_sigma": torch.tensor([0.0, 0.8, 1.7, 0.3], dtype=number),
    }


def every_option(arguments: Arguments) -> Arguments:
    channels, number = arguments["target"].shape[1], arguments["vertices"].dtype
    unit = 255.0 if arguments["target"].dtype == torch.uint8 else 1.0
    ramp = torch.linspace(0.5, 1.5, 4 * channels, dtype=number).view(4, channels)
    return {
        **arguments,
        "strength": torch.tensor([1.0, 0.6, 0.9, 0.3], dtype=number),
        "color_gain": ramp,
        "color_offset": unit * (ramp - 1) / 2,
        "blend_mode": torch.tensor([1, 5, 0, 2]),
        "edge_amplitude": torch.tensor([2.0, 0.0, 3.5, 1.0], dtype=number),
        "edge_grain": torch.tensor([3.0, 1.0, 6.5, 2.0], dtype=number),
        "edge_seed": torch.tensor([-7, 0, 2**33 + 1, 5]),
        "value_range": (0.1 * unit, 0.8 * unit),
    }


def packed(arguments: Arguments, kind: torch.dtype) -> Arguments:
    """A pool of bytes or numbers whose images have their own sizes."""
    channels, unit = arguments["target"].shape[1], 255.0 if kind == torch.uint8 else 1.0
    sizes = [(4, 9), (1, 1), (13, 6)]
    pool = [torch.full((3,), 99.0, dtype=torch.float64)]
    pool += [unit * textured(channels, *size, seed=seed).flatten() for seed, size in enumerate(sizes)]
    offsets = [sum(len(values) for values in pool[: index + 1]) for index in range(3)]
    layout = torch.tensor([(offset, *size) for offset, size in zip(offsets, sizes, strict=True)], dtype=torch.int32)
    return {**arguments, "source": torch.cat(pool).to(kind), "source_layout": layout}


# --- images and pools ----------------------------------------------------------------------------------------------

DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("channels_last", [False, True], ids=["planar", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_and_layout(dtype: torch.dtype, channels_last: bool) -> None:
    arguments = every_option(batch(12, 14, dtype=dtype))
    if channels_last:
        for name in ("target", "source"):
            arguments[name] = arguments[name].contiguous(memory_format=torch.channels_last)
    images, _ = assert_agrees(arguments)
    assert images.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packed_pools(dtype: torch.dtype) -> None:
    assert_agrees(packed(batch(18, 20, channels=2, dtype=dtype), dtype))
    assert_agrees(every_option(packed(batch(18, 20, channels=1, dtype=dtype), torch.uint8)))


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6])
def test_any_number_of_channels(channels: int) -> None:
    options = every_option(batch(8, 9, channels=channels))
    assert_agrees({name: value for name, value in options.items() if not name.startswith("edge")})


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 3), (16, 32), (17, 33)])
@pytest.mark.usefixtures("small_tiles")
def test_every_size(size: tuple[int, int]) -> None:
    assert_agrees(batch(*size, channels=1))


def test_strides_do_not_matter() -> None:
    arguments = batch(12, 14)
    wide = textured(2, 6, 24, 30).float()
    arguments["source"] = textured(3, 9, 11, 3, seed=2).float().permute(0, 3, 1, 2)
    for target in (wide[:, ::2, ::2, 1:29:2], wide[:1, :3, :12, :14].expand(2, -1, -1, -1), wide[:, :3, 3:17, :12].mT):
        expected = paste_defects(**{**arguments, "target": target.contiguous()}, backend="triton")
        got = paste_defects(**{**arguments, "target": target}, backend="triton")
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
    every = torch.full((2, 6, 24, 28), 77.0)
    into = every[:, ::2, ::2, ::2]
    images, _ = paste_defects(**arguments, out=into, backend="triton")
    assert images is into
    assert torch.equal(images, paste_defects(**arguments, backend="triton")[0])
    assert bool((every[:, 1::2] == 77).all())
    assert bool((every[:, :, :, 1::2] == 77).all())


def test_wide_offsets_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images too large for offsets of 32 bits are too large for a test."""
    import triton.language as tl

    arguments = batch(9, 10)
    expected = paste_defects(**arguments, backend="triton")
    monkeypatch.setattr(paste_launch, "_index_type", lambda _: tl.int64)
    got = paste_defects(**arguments, backend="triton")
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_nothing_to_paste() -> None:
    arguments = batch(9, 10)
    empty = arguments["target"][:0]
    none = {
        name: value[:0] if name not in ("target", "source", "image_index") else value
        for name, value in arguments.items()
    }
    images, opacity = paste_defects(**none, backend="triton")
    assert torch.equal(images, arguments["target"])
    assert not opacity.any()
    images, opacity = paste_defects(**{**none, "target": empty}, backend="triton")
    assert images.shape == empty.shape
    assert opacity.shape == (0, 1, 9, 10)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes in numpy
def test_untouched_pixels_keep_the_bits_of_a_number_that_is_none() -> None:
    for dtype, bits, kind in (
        (torch.float16, 0x7D01, torch.int16),
        (torch.bfloat16, 0x7F81, torch.int16),
        (torch.float32, 0x7FA00001, torch.int32),
    ):
        arguments = batch(20, 21, channels=1, dtype=dtype)
        arguments["target"].view(kind).fill_(bits)
        arguments["vertex_count"][:2] = 0
        images, opacity = paste_defects(**arguments, backend="triton")
        untouched = opacity == 0
        assert bool(untouched[0].all())
        assert not bool(untouched[1].all())
        assert bool((images.view(kind)[untouched] == bits).all())


# --- polygons ------------------------------------------------------------------------------------------------------


@settings(max_examples=3)
@given(seed=st.integers(0, 2**32))
def test_agrees_with_the_reference_whatever_the_options(seed: int) -> None:
    assert_agrees(any_batch(seed))


def test_polygons_in_any_order() -> None:
    """Those of different images are mixed; those of one image keep their order."""
    slots = every_option(batch(15, 17))
    expected = paste_defects(**slots, backend="triton")
    order = torch.tensor([2, 0, 3, 1])
    mixed: Arguments = {
        name: value[order] if isinstance(value, Tensor) and name not in ("target", "source") else value
        for name, value in slots.items()
    }
    mixed["image_index"] = torch.tensor([1, 0, 1, 0], dtype=torch.uint8)
    got = paste_defects(**mixed, backend="triton")
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_more_polygons_than_are_looked_at_at_once() -> None:
    arguments = batch(9, 10, channels=1)
    repeated = {
        name: value.repeat(33, *[1] * (value.ndim - 1))
        if isinstance(value, Tensor) and name not in ("target", "source")
        else value
        for name, value in arguments.items()
    }
    repeated["strength"] = torch.full((132,), 0.1)
    repeated["image_index"] = torch.arange(132) % 7 // 3 % 2
    repeated["vertex_count"][12:120] = 0
    assert_agrees(repeated)
    assert_agrees({**repeated, "image_index": None, "target": arguments["target"][:1]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [False, True], ids=["straight", "noise"])
@pytest.mark.usefixtures("small_tiles")
def test_inside_to_the_last_pixel(dtype: torch.dtype, noise: bool) -> None:
    """Corners and centres of pixels, no area, subnormal numbers, and edges longer than a float32 can tell pixels."""
    generator = torch.Generator().manual_seed(1)
    count = 3
    near = 20 * torch.rand(count, 7, 2, generator=generator, dtype=torch.float64)
    blank = torch.zeros(count, 1, 8, 30, dtype=dtype)
    arguments: Arguments = {
        "target": blank,
        "source": torch.ones(1, 1, 2, 2, dtype=dtype),
        "vertex_count": 3 + 2 * torch.arange(count),
        "image_index": None,
        "source_index": torch.zeros(count, dtype=torch.int64),
        "transform": torch.zeros(count, 2, 3, dtype=dtype),
        "blur_sigma": torch.zeros(count, dtype=dtype),
    }
    if noise:
        arguments["edge_amplitude"] = torch.linspace(0, 64, count)
        arguments["edge_grain"] = torch.linspace(1, 90, count)
        arguments["edge_seed"] = 2**31 * torch.arange(count) - 3
    flat = near.clone()
    flat[:, :, 1] = 4.5
    far = near.clone()
    far[:, 1::2] = (far[:, 1::2] - 10) * 1e7
    for vertices in (near, (2 * near).round() / 2, flat, far, 1e-40 * near):
        arguments["vertices"] = vertices.to(dtype)
        images, opacity = paste_defects(**arguments, backend="triton")
        assert torch.equal(images, opacity)
        assert torch.equal(opacity, paste_defects(**arguments, backend="reference")[1])


@pytest.mark.parametrize("sigma", [1e-4, 0.02, 0.4, 6.0, 64.0])
@pytest.mark.usefixtures("small_tiles")
def test_every_blur(sigma: float) -> None:
    arguments = batch(12, 18, channels=1)
    arguments["blur_sigma"] = torch.tensor([sigma, 0.0, 0.0, sigma])
    assert_agrees(arguments)


@pytest.mark.parametrize("mode", range(6))
def test_every_blend_mode(mode: int) -> None:
    arguments = batch(14, 15)
    arguments["blend_mode"] = torch.tensor([mode, 0, mode, mode])
    assert_agrees(arguments)


def test_what_the_polygon_leaves_out_of_the_source_is_not_read() -> None:
    arguments = batch(16, 16, channels=1)
    arguments["vertices"] = torch.tensor([(5.0, 5.0), (10.0, 5.0), (10.0, 10.0), (5.0, 10.0)] + [(0.0, 0.0)] * 3)
    arguments["vertices"] = arguments["vertices"].repeat(4, 1, 1)
    arguments["vertex_count"] = torch.tensor([4, 4, 4, 4])
    arguments["transform"] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(4, 1, 1)
    arguments["source"] = torch.full((3, 1, 16, 16), 0.5)
    expected = paste_defects(**arguments, backend="triton")
    arguments["source"][:, :, :4], arguments["source"][:, :, :, 12:] = torch.nan, torch.inf
    got = paste_defects(**arguments, backend="triton")
    assert torch.equal(got[0], expected[0])


def test_the_same_bits_each_time_and_whatever_else_is_in_the_batch() -> None:
    arguments = every_option(batch(15, 33))
    first, second = (paste_defects(**arguments, backend="triton") for _ in range(2))
    assert torch.equal(first[0], second[0])
    alone = {
        name: value[2:] if isinstance(value, Tensor) and name not in ("target", "source") else value
        for name, value in arguments.items()
    }
    images, opacity = paste_defects(**{**alone, "target": arguments["target"][1:]}, backend="triton")
    assert torch.equal(images, first[0][1:])
    assert torch.equal(opacity, first[1][1:])


# --- what can not be pasted ----------------------------------------------------------------------------------------

GARBAGE: dict[str, Any] = {
    "vertices": float("nan"),
    "source_index": 200,
    "transform": float("inf"),
    "blur_sigma": -1.0,
    "strength": float("nan"),
    "color_gain": float("nan"),
    "color_offset": float("inf"),
    "blend_mode": 99,
    "edge_amplitude": 1e30,
    "edge_grain": 0.0,
}
UNUSABLE = [
    *GARBAGE.items(),
    ("vertex_count", 2),
    ("vertex_count", 8),
    ("vertex_count", -1),
    ("blur_sigma", 64.5),
    ("blur_sigma", float("nan")),
    ("strength", 1.5),
    ("blend_mode", -1),
    ("edge_grain", float("inf")),
    ("image_index", -1),
    ("image_index", 2),
    ("source_layout", (-1, 2, 2)),
    ("source_layout", (0, 0, 4)),
    ("source_layout", (0, 2**31 - 1, 2**31 - 1)),
    ("source_layout", (2**31 - 1, 1, 1)),
]


def test_an_empty_slot_may_hold_anything() -> None:
    arguments = every_option(batch(9, 10, channels=1))
    arguments["vertex_count"][1] = 0
    expected = paste_defects(**arguments, backend="triton")
    for name, content in GARBAGE.items():
        arguments[name] = arguments[name].clone()
        arguments[name][1] = content
    got = paste_defects(**arguments, backend="triton")
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def many_squares(count: int) -> Arguments:
    """As many polygons that cover a whole image, and as many source images and more."""
    square = torch.tensor([(-9.0, -9.0), (30.0, -9.0), (30.0, 30.0)] + [(-9.0, 30.0)] * 4)
    return {
        "target": textured(2, 1, 8, 9, seed=1).float(),
        "source": textured(1, 1, 20 * count, 1, seed=2).float().flatten(),
        "source_layout": torch.tensor([(4 * index, 2, 2) for index in range(count)]),
        "vertices": square.repeat(count, 1, 1),
        "vertex_count": torch.full((count,), 4),
        "image_index": torch.zeros(count, dtype=torch.int64),
        "source_index": torch.arange(count),
        "transform": torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(1)),
        "blur_sigma": torch.full((count,), 0.5),
        "strength": torch.full((count,), 0.2),
        "color_gain": torch.full((count, 1), 0.9),
        "color_offset": torch.full((count, 1), 0.05),
        "blend_mode": torch.zeros(count, dtype=torch.int64),
        "edge_amplitude": torch.full((count,), 1.0),
        "edge_grain": torch.full((count,), 2.0),
        "edge_seed": torch.arange(count),
    }


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes in numpy
def test_unusable_polygons_are_left_out_where_nobody_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paste_launch, "require_values", lambda *_: None)
    last = len(UNUSABLE)  # the only good one
    arguments = many_squares(last + 1)
    for polygon, (name, content) in enumerate(UNUSABLE):
        arguments[name][polygon] = torch.tensor(content, dtype=arguments[name].dtype)
    images, opacity = paste_defects(**arguments, backend="triton")
    one = {name: value[last:] if name in paste_names() else value for name, value in arguments.items()}
    expected, expected_opacity = paste_defects(**one, backend="reference")
    assert_images(images, expected)
    assert_images(opacity, expected_opacity, "paste opacity")
    assert bool((opacity[0] > 0.1).all())
    assert not opacity[1].any()


def paste_names() -> set[str]:
    """The arguments with one entry for each polygon."""
    return set(many_squares(1)) - {"target", "source", "source_layout"}


def test_on_the_cpu_an_unusable_polygon_is_named() -> None:
    arguments = batch(8, 9)
    before = arguments["target"].clone()
    arguments["blur_sigma"][2] = -1
    with pytest.raises(ValueError, match=r"blur_sigma of polygon 2 is -1\.0"):
        paste_defects(**arguments, out=arguments["target"], backend="triton")
    assert torch.equal(arguments["target"], before)


# --- as torch sees it ----------------------------------------------------------------------------------------------


def test_operators_are_registered_well() -> None:
    assert "triton" in available_backends("paste_defects")
    arguments = operands(every_option(batch(6, 7, channels=2)))
    torch.library.opcheck(torch.ops.twostage_kernels.triton_paste_defects.default, arguments)
    torch.library.opcheck(torch.ops.twostage_kernels.triton_paste_defects_.default, arguments)
