"""The optional parts of ``paste_defects``: packed pools, colour, blend modes, irregular edges, ``out``."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paste_cases import IDENTITY, KITE, SQUARE, STAR, Defects, assert_images, defects, textured
from similarity_cases import backend_cases
from torch import Tensor

from twostage_kernels import BLEND_MODES, paste_defects

BACKENDS = pytest.mark.parametrize(("device", "backend"), backend_cases("paste_defects"))
LEFT = [(0.0, 0.0), (8.0, 0.0), (8.0, 16.0), (0.0, 16.0)]
EVERYWHERE = [(-1.0, -1.0), (99.0, -1.0), (99.0, 99.0), (-1.0, 99.0)]


def paste(batch: Defects, target: Tensor, source: Tensor, device: str, backend: str, **options: Any) -> Any:
    arguments = {name: getattr(batch, name).to(device) for name in batch.__dataclass_fields__}
    given = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in options.items()}
    return paste_defects(target.to(device), source.to(device), **{**arguments, **given}, backend=backend)


# --- the pool ------------------------------------------------------------------------------------------------------


def packed(images: list[Tensor], lead: int = 3) -> dict[str, Tensor]:
    """Images of any size one behind the other, after some values that belong to none."""
    source = torch.cat([torch.full((lead,), 99).to(images[0].dtype), *[image.flatten() for image in images]])
    offset, layout = lead, []
    for image in images:
        layout.append((offset, image.shape[1], image.shape[2]))
        offset += image.numel()
    return {"source": source, "source_layout": torch.tensor(layout)}


@BACKENDS
@given(sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4), data=st.data())
def test_a_packed_pool_is_read_as_its_images_alone(
    device: str, backend: str, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    images = [textured(2, *size, seed=index) for index, size in enumerate(sizes)]
    chosen = [data.draw(st.integers(0, len(sizes) - 1)) for _ in range(3)]
    transform = [[data.draw(st.floats(-2, 2)) for _ in range(3)] for _ in range(2)]
    batch = defects(KITE, STAR, SQUARE, image=[0, 1, 2], source=chosen, transform=transform, blur=[0.7, 0.0, 1.2])
    target = textured(3, 2, 16, 16, seed=9)
    pool = packed(images)
    got = paste(batch, target, pool["source"], device, backend, source_layout=pool["source_layout"])
    for place, index in enumerate(chosen):
        own = replace(batch.pick([place]), image_index=torch.tensor([0]), source_index=torch.tensor([0]))
        expected = own.paste(target[place : place + 1], images[index].unsqueeze(0), device, backend)
        assert_images(got[0][place], expected[0][0])
        assert_images(got[1][place], expected[1][0], "paste opacity")


@BACKENDS
def test_bytes_beside_numbers_count_255_as_one(device: str, backend: str) -> None:
    source = (255 * textured(1, 3, 12, 13, seed=2)).round().to(torch.uint8)
    batch = defects(KITE, blur=0.8, strength=0.9)
    for dtype in (torch.float64, torch.float32):
        target = textured(1, 3, 16, 16, seed=1).to(dtype)
        got = paste(batch, target, source, device, backend)
        expected = paste(batch, target, (source.double() / 255).to(dtype), device, backend)
        assert_images(got[0], expected[0])
        assert_images(got[1], expected[1], "paste opacity")


@BACKENDS
def test_polygons_in_slots_need_no_index(device: str, backend: str) -> None:
    target, source = textured(3, 1, 16, 16, seed=1), textured(2, 1, 16, 16, seed=2)
    polygons = [KITE, [], STAR, SQUARE, [], []]
    batch = defects(*polygons, image=[0, 0, 1, 1, 2, 2], source=[0, 0, 1, 0, 0, 0], blur=0.6)
    expected = paste(batch, target, source, device, backend)
    got = paste(batch, target, source, device, backend, image_index=None)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


# --- colour --------------------------------------------------------------------------------------------------------


@BACKENDS
def test_gain_and_offset_change_the_cut_out_before_the_blur(device: str, backend: str) -> None:
    target, source = textured(2, 3, 16, 16, seed=1), textured(2, 3, 16, 16, seed=2)
    gain = torch.tensor([[1.0, 2.0, -0.5], [0.0, 1.5, 3.0]], dtype=torch.float64)
    offset = torch.tensor([[0.1, -0.4, 0.6], [0.3, -0.2, -1.0]], dtype=torch.float64)
    batch = defects(KITE, STAR, image=[0, 1], source=[1, 0], blur=[1.1, 0.0], strength=0.8)
    got = paste(batch, target, source, device, backend, color_gain=gain, color_offset=offset)
    for place in range(2):
        changed = source * gain[place].view(3, 1, 1) + offset[place].view(3, 1, 1)
        alone = replace(batch.pick([place]), image_index=torch.tensor([0]))
        expected = paste(alone, target[place : place + 1], changed.clamp(0, 1), device, backend)
        assert_images(got[0][place], expected[0][0])
    bytes_target, bytes_source = ((255 * image).round().to(torch.uint8) for image in (target, source))
    images, _ = paste(batch, bytes_target, bytes_source, device, backend, color_offset=torch.full((2, 3), 300.0))
    assert int(images[0, :, 7, 7].min()) >= 255 - 255 * 0.2
    one = torch.ones(2, 3, dtype=torch.float64)
    wide = paste(batch, target, source, device, backend, color_gain=2 * one, value_range=(-1.0, 3.0))
    assert float(wide[0].max()) > 1.2


# --- blend modes ---------------------------------------------------------------------------------------------------


def expected_mix(mode: str, below: Tensor, above: Tensor) -> Tensor:
    """Of values between 0 and 1, as the W3C's compositing specification (and GIMP for the last) define them."""
    formulas = {
        "normal": above,
        "multiply": below * above,
        "screen": below + above - below * above,
        "darken": torch.minimum(below, above),
        "lighten": torch.maximum(below, above),
        "grain_merge": (below + above - 0.5).clamp(0, 1),
    }
    return formulas[mode]


@pytest.mark.parametrize("number", range(len(BLEND_MODES)), ids=BLEND_MODES)
@BACKENDS
def test_modes_mix_by_their_formula(device: str, backend: str, number: int) -> None:
    target, source = textured(1, 3, 16, 16, seed=1), textured(1, 3, 16, 16, seed=2)
    mode = torch.tensor([number])
    sharp = paste(defects(LEFT, strength=0.7), target, source, device, backend, blend_mode=mode)
    mixed = expected_mix(BLEND_MODES[number], target, source)
    inside = torch.arange(16) < 8
    assert_images(sharp[0], torch.where(inside, 0.3 * target + 0.7 * mixed, target))
    # Blurred, the cut-out's own colour is what covers the pixel.
    flat = torch.full((1, 3, 16, 16), 0.3, dtype=torch.float64)
    soft = paste(defects(KITE, blur=1.3), target, flat, device, backend, blend_mode=mode)
    level = soft[1].cpu()
    assert_images(soft[0], target * (1 - level) + level * expected_mix(BLEND_MODES[number], target, flat))


@BACKENDS
def test_a_mode_knows_the_range_of_the_values(device: str, backend: str) -> None:
    target, source = textured(1, 1, 16, 16, seed=1), textured(1, 1, 16, 16, seed=2)
    batch, modes = defects(*[SQUARE] * 6, image=[0] * 6, blur=0.5, strength=0.5), torch.arange(6)
    expected = paste(batch, target, source, device, backend, blend_mode=modes)
    wide = paste(batch, 4 * target - 1, 4 * source - 1, device, backend, blend_mode=modes, value_range=(-1.0, 3.0))
    assert_images((wide[0] + 1) / 4, expected[0])


# --- irregular edges -----------------------------------------------------------------------------------------------


def noisy_masks(amplitude: float, grain: float, seeds: list[int], device: str, backend: str, **options: Any) -> Any:
    """[P, 64, 64], each of a square from 16 to 48."""
    count = len(seeds)
    square = [(16.0, 16.0), (48.0, 16.0), (48.0, 48.0), (16.0, 48.0)]
    batch = defects(*[square] * count, image=list(range(count)), dtype=options.get("dtype", torch.float64))
    blank = torch.zeros(count, 1, 64, 64, dtype=batch.vertices.dtype)
    noise = {
        "edge_amplitude": torch.full((count,), amplitude),
        "edge_grain": torch.full((count,), grain),
        "edge_seed": torch.tensor(seeds),
    }
    _, opacity = paste(batch, blank, blank[:1], device, backend, **noise)
    return opacity[:, 0].cpu()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@BACKENDS
def test_noise_finds_the_same_pixels_as_the_reference(device: str, backend: str, dtype: torch.dtype) -> None:
    for amplitude, grain in ((0.0, 1.0), (0.4, 1.0), (3.0, 5.0), (10.0, 2.5), (64.0, 300.0)):
        seeds = [0, 1, 2**31, 2**32 + 5, -3]
        got = noisy_masks(amplitude, grain, seeds, device, backend, dtype=dtype)
        assert torch.equal(got, noisy_masks(amplitude, grain, seeds, "cpu", "reference", dtype=dtype))


@BACKENDS
def test_noise_moves_edges_by_no_more_than_its_amplitude(device: str, backend: str) -> None:
    straight = noisy_masks(0.0, 6.0, [0], device, backend)[0]
    y, x = np.mgrid[0:64, 0:64] + 0.5
    depth = torch.as_tensor(np.minimum(np.minimum(x - 16, 48 - x), np.minimum(y - 16, 48 - y)))
    for amplitude in (1.0, 5.0):
        many = noisy_masks(amplitude, 6.0, list(range(20)), device, backend)
        assert bool((many[:, depth > amplitude] == 1).all())
        assert bool((many[:, depth < -amplitude] == 0).all())
        changed = (many != straight).sum(dim=(1, 2)).double()
        assert float(changed.mean()) > 10 * amplitude
        assert len({tuple(mask.flatten().tolist()) for mask in many}) == 20
        # On average the edge stays where it was.
        assert abs(float((many.sum(dim=(1, 2)) - straight.sum()).mean())) < 0.1 * 4 * 32 * amplitude


@BACKENDS
def test_larger_grains_make_smoother_edges(device: str, backend: str) -> None:
    def roughness(grain: float) -> float:
        """Changes between inside and outside along all rows and columns."""
        many = noisy_masks(4.0, grain, list(range(10)), device, backend)
        return float(many.diff(dim=1).abs().sum() + many.diff(dim=2).abs().sum())

    assert roughness(2.0) > 1.3 * roughness(8.0) > 1.3 * roughness(32.0)


# --- out -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@BACKENDS
def test_out_takes_the_images(device: str, backend: str, dtype: torch.dtype, memory: torch.memory_format) -> None:
    shape = (2, 3, 16, 14)
    images = [textured(*shape, seed=seed) for seed in (1, 2)]
    target, source = (
        ((255 * image).round() if dtype == torch.uint8 else image).to(device, dtype).contiguous(memory_format=memory)
        for image in images
    )
    batch = defects(KITE, STAR, SQUARE, image=[0, 1, 0], source=[1, 0, 1], blur=[0.8, 0.0, 0.5])
    expected = paste(batch, target, source, device, backend)
    assert expected[0].is_contiguous(memory_format=memory)
    apart = torch.full_like(target, 77)
    scattered = torch.full((2, 6, 32, 28), 77, dtype=dtype, device=device)[:, ::2, ::2, ::2]
    same = target.clone(memory_format=torch.preserve_format)
    for out, start in ((apart, target), (scattered, target), (same, same)):
        got = paste(batch, start, source, device, backend, out=out)
        assert got[0] is out
        assert torch.equal(out, expected[0])
        assert torch.equal(got[1], expected[1])
    everywhere = torch.full((2, 6, 32, 28), 77, dtype=dtype, device=device)
    paste(batch, target, source, device, backend, out=everywhere[:, ::2, ::2, ::2])
    assert bool((everywhere[:, 1::2] == 77).all())


@BACKENDS
def test_images_in_any_strides(device: str, backend: str) -> None:
    """Turned, expanded, one in two, overlapping columns of a wider tensor."""
    base = textured(4, 6, 32, 40, seed=1).to(device)
    source = textured(2, 9, 11, 3, seed=2).to(device).permute(0, 3, 1, 2)
    batch = defects(KITE, STAR, image=[1, 0], source=[0, 1], blur=[0.8, 0.0])
    for target in (
        base[:2, :3, :16, :16].transpose(2, 3),
        base[:1, :3, :16, :16].expand(2, -1, -1, -1),
        base[::2, ::2, ::2, ::2],
        base[:2, :1, :16, :16].expand(-1, 3, -1, -1),
        base[:2, :3, 5:21, 7:23],
    ):
        expected = paste(batch, target.contiguous(), source.contiguous(), device, backend)
        got = paste(batch, target, source, device, backend)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


# --- refusals ------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "target": torch.zeros(2, 3, 8, 9),
    **packed([torch.zeros(3, 4, 5), torch.zeros(3, 6, 2)]),
    "vertices": torch.rand(2, 7, 2),
    "vertex_count": torch.tensor([3, 7]),
    "image_index": torch.tensor([0, 1]),
    "source_index": torch.tensor([1, 0]),
    "transform": torch.tensor(IDENTITY).repeat(2, 1, 1),
    "blur_sigma": torch.tensor([0.0, 1.0]),
}
EDGE = {
    "edge_amplitude": torch.tensor([1.0, 2.0]),
    "edge_grain": torch.tensor([1.0, 2.0]),
    "edge_seed": torch.tensor([1, 2]),
}
LAYOUT = GOOD["source_layout"]
OUTSIDE = "source_index of polygon {} is {}; accepted: an image whose source_layout lies within the 99 values of source"
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"source": torch.zeros(2, 3, 4, 5)}, ValueError, r"source has shape \(2, 3, 4, 5\); accepted: \[N\]"),
    ({"source_layout": [1]}, TypeError, "source_layout is a list; accepted: a torch.Tensor"),
    ({"source_layout": LAYOUT[:, :2]}, ValueError, r"source_layout has shape \(2, 2\); accepted: \[S, 3\]"),
    ({"source_layout": LAYOUT.float()}, TypeError, "source_layout has dtype torch.float32; accepted: an integer"),
    ({"source_layout": LAYOUT.to("meta")}, ValueError, "source_layout is on meta and target on cpu"),
    ({"source_layout": LAYOUT[:1]}, ValueError, r"source_index of polygon 0 is 1; accepted: 0\.\.0"),
    ({"source_layout": LAYOUT + torch.tensor([1, 0, 0])}, ValueError, OUTSIDE.format(0, 1)),
    ({"source_layout": LAYOUT - torch.tensor([4, 0, 0])}, ValueError, OUTSIDE.format(1, 0)),
    ({"source_layout": LAYOUT * torch.tensor([1, 0, 1])}, ValueError, OUTSIDE.format(0, 1)),
    ({"source_layout": LAYOUT * torch.tensor([1, 2**40, 1])}, ValueError, OUTSIDE.format(0, 1)),
    (
        {"source": torch.zeros(0, 3, 4, 5), "source_layout": None},
        ValueError,
        "source_index of polygon 0 is 1; accepted: nothing: the source holds no image, give it at least one",
    ),
    ({"image_index": None, "target": torch.zeros(3, 3, 8, 9)}, ValueError, "image_index is None for 2 polygons and 3"),
    ({"color_gain": torch.ones(2)}, ValueError, r"color_gain has shape \(2,\); accepted for 2 polygons: \[2, 3\]"),
    ({"color_offset": torch.full((2, 3), torch.inf)}, ValueError, "color_offset of polygon 0 is .*inf.*; accepted"),
    ({"blend_mode": torch.tensor([0, 6])}, ValueError, "blend_mode of polygon 1 is 6; accepted: 0 normal, 1 multiply"),
    ({"blend_mode": torch.tensor([0.0, 1.0])}, TypeError, "blend_mode has dtype torch.float32; accepted: an integer"),
    ({"edge_grain": EDGE["edge_grain"]}, ValueError, "edge_amplitude, edge_seed is None beside edge_grain; accepted"),
    ({**EDGE, "edge_grain": torch.tensor([1.0, 0.5])}, ValueError, "edge_grain of polygon 1 is 0.5; accepted: .*1"),
    (
        {**EDGE, "edge_amplitude": torch.tensor([-1.0, 1])},
        ValueError,
        r"edge_amplitude of polygon 0 is -1.0; .*0\.\.64",
    ),
    ({**EDGE, "edge_seed": torch.rand(2)}, TypeError, "edge_seed has dtype torch.float32; accepted: an integer"),
    ({"blur_sigma": torch.tensor([1.0, 64.5])}, ValueError, "blur_sigma of polygon 1 is 64.5; .* at most 64"),
    ({"value_range": (1.0, 0.0)}, ValueError, r"value_range is \(1.0, 0.0\); accepted: \(lowest, highest\)"),
    ({"value_range": (0.0, float("inf"))}, ValueError, "value_range is .*inf.*; accepted"),
    ({"out": 1}, TypeError, "out is a int; accepted: a torch.Tensor"),
    ({"out": torch.zeros(2, 3, 8, 8)}, ValueError, "out has shape .*8, 8.* and target .*8, 9.*; accepted: the same"),
    ({"out": torch.zeros(2, 3, 8, 9).half()}, ValueError, "out has dtype torch.float16 and target torch.float32"),
    (
        {"out": torch.zeros(1, 3, 8, 9).expand(2, 3, 8, 9)},
        ValueError,
        "out has strides .*; accepted: memory of its own",
    ),
]


@pytest.mark.parametrize(
    "backend", [case.values[1] for case in backend_cases("paste_defects") if case.values[0] == "cpu"]
)
@pytest.mark.parametrize(("arguments", "error", "message"), WRONG, ids=[message[:60] for *_, message in WRONG])
def test_a_wrong_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], message: str, backend: str
) -> None:
    paste_defects(**{**GOOD, **EDGE}, backend=backend)
    with pytest.raises(error, match=message):
        paste_defects(**{**GOOD, **arguments}, backend=backend)


@BACKENDS
def test_an_error_leaves_the_target_as_it_was(device: str, backend: str) -> None:
    if device != "cpu":
        pytest.skip("values are not looked at on a GPU")
    target = GOOD["target"].clone()
    wrong = {**GOOD, "target": target, "blur_sigma": torch.tensor([0.0, -1.0])}
    with pytest.raises(ValueError, match="blur_sigma of polygon 1"):
        paste_defects(**wrong, out=target, backend=backend)
    assert torch.equal(target, GOOD["target"])
