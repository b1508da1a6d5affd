"""``paste_defects`` with empty slots, every dtype and layout, and everything it must refuse."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from paste_cases import IDENTITY, KITE, SQUARE, STAR, Defects, assert_images, defects, textured
from similarity_cases import backend_cases
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import available_backends, paste_defects

BACKENDS = pytest.mark.parametrize(("device", "backend"), backend_cases("paste_defects"))


# --- slots, dtypes, layout -----------------------------------------------------------------------------------------


@BACKENDS
def test_empty_slots_count_for_nothing_whatever_they_hold(device: str, backend: str) -> None:
    target, source = textured(1, 1, 16, 16, seed=1), textured(1, 1, 16, 16, seed=2)
    full = defects(KITE, STAR, blur=[0.8, 0.4])
    padded = defects([], KITE, [], STAR, [], blur=[float("nan"), 0.8, -3.0, 0.4, 1e30], strength=[7, 1, -1, 1, 9])
    padded.source_index[[0, 2, 4]] = torch.tensor([99, -1, -7], dtype=torch.int32)
    padded.image_index[[0, 2, 4]] = torch.tensor([99, -1, -7], dtype=torch.int32)
    padded = replace(padded, transform=padded.transform.clone())
    padded.transform[[0, 2, 4]] = float("nan")
    expected, got = (batch.paste(target, source, device, backend) for batch in (full, padded))
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@BACKENDS
@pytest.mark.parametrize("slots", [0, 3], ids=["no polygon", "empty slots only"])
def test_without_polygons_the_target_comes_back_as_a_copy(device: str, backend: str, slots: int) -> None:
    target = textured(2, 1, 8, 9).to(device)
    images, opacity = defects(*[[]] * slots).paste(target, textured(1, 1, 8, 9), device, backend)
    assert torch.equal(images, target)
    assert images.data_ptr() != target.data_ptr()
    assert opacity.shape == (2, 1, 8, 9)
    assert not bool(opacity.any())


@BACKENDS
def test_strength_is_one_unless_given(device: str, backend: str) -> None:
    target, source, batch = textured(1, 1, 16, 16), textured(1, 1, 16, 16, seed=2), defects(KITE, blur=0.7)
    expected = batch.paste(target, source, device, backend)
    positional = [getattr(batch, name).to(device) for name in batch.__dataclass_fields__ if name != "strength"]
    got = paste_defects(target.to(device), source.to(device), *positional, backend=backend)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [(torch.float32, 0.0), (torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)],
    ids=["float32", "float16", "bfloat16"],
)
@BACKENDS
def test_other_float_images_differ_by_their_own_rounding_alone(
    device: str, backend: str, dtype: torch.dtype, rounding: float
) -> None:
    target, source = textured(1, 3, 16, 16, seed=1).to(dtype), textured(1, 3, 16, 16, seed=2).to(dtype)
    batch = defects(KITE, STAR, blur=[0.8, 0.0], strength=[0.5, 0.9])
    expected, level = batch.paste(target.double(), source.double(), device, backend)
    images, opacity = batch.paste(target, source, device, backend)
    assert (images.dtype, opacity.dtype) == (dtype, torch.float32)
    assert float((images.double() - expected).abs().max()) <= rounding + tolerance("paste image", dtype)
    assert_images(opacity, level, "paste opacity")
    assert torch.equal(images[opacity.expand_as(images) == 0], target.to(device)[opacity.expand_as(images) == 0])


@BACKENDS
def test_uint8_images_are_rounded_to_the_nearest(device: str, backend: str) -> None:
    target, source = ((255 * textured(1, 3, 16, 16, seed=seed)).round().to(torch.uint8) for seed in (1, 2))
    target[0, 0], source[0, 0] = 255, 255  # and never wrap around
    batch = defects(KITE, STAR, blur=[0.8, 0.0], strength=[0.5, 0.9])
    expected, _ = batch.paste(target.double(), source.double(), device, backend)
    images, opacity = batch.paste(target, source, device, backend)
    assert (images.dtype, opacity.dtype) == (torch.uint8, torch.float32)
    assert float((images.double() - expected).abs().max()) <= 0.5 + 255 * tolerance("paste image", torch.uint8)
    assert bool((images[0, 0] == 255).all())


@pytest.mark.parametrize("index", [torch.uint8, torch.int8, torch.int16, torch.int64])
@pytest.mark.parametrize("real", [torch.float16, torch.bfloat16, torch.float32])
@BACKENDS
def test_polygons_may_come_in_any_integer_and_floating_dtype(
    device: str, backend: str, index: torch.dtype, real: torch.dtype
) -> None:
    target, source = textured(2, 1, 16, 16, seed=1), textured(2, 1, 16, 16, seed=2)
    # Numbers that every dtype holds exactly.
    batch = defects(SQUARE, SQUARE, image=[1, 0], source=[0, 1], blur=[0.5, 2.0], strength=[0.5, 1.0])
    expected = batch.paste(target, source, device, backend)
    cast = Defects(
        *(
            getattr(batch, name).to(real if getattr(batch, name).is_floating_point() else index)
            for name in batch.__dataclass_fields__
        )
    )
    got = cast.paste(target, source, device, backend)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@BACKENDS
def test_strides_and_gradients_of_the_images_do_not_matter(device: str, backend: str) -> None:
    target, source = textured(2, 3, 16, 14, seed=1), textured(2, 3, 11, 16, seed=2)
    batch = defects(KITE, STAR, image=[1, 0], source=[0, 1], blur=[0.8, 0.0])
    expected = batch.paste(target, source, device, backend)
    strided = [image.contiguous(memory_format=torch.channels_last).requires_grad_() for image in (target, source)]
    scattered = Defects(*(getattr(batch, name).repeat_interleave(2, dim=0)[::2] for name in batch.__dataclass_fields__))
    got = scattered.paste(strided[0], strided[1], device, backend)
    assert not got[0].requires_grad
    assert_images(got[0], expected[0])
    assert_images(got[1], expected[1], "paste opacity")
    with torch.autocast(device, dtype=torch.bfloat16):
        autocast = batch.paste(target.float(), source.float(), device, backend)
    plain = batch.paste(target.float(), source.float(), device, backend)
    assert torch.equal(autocast[0], plain[0])


# --- refusals ------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "target": torch.zeros(2, 3, 8, 9),
    "source": torch.zeros(4, 3, 5, 6),
    "vertices": torch.rand(2, 7, 2),
    "vertex_count": torch.tensor([3, 7]),
    "image_index": torch.tensor([0, 1]),
    "source_index": torch.tensor([3, 0]),
    "transform": torch.tensor(IDENTITY).repeat(2, 1, 1),
    "blur_sigma": torch.tensor([0.0, 1.0]),
    "strength": torch.tensor([1.0, 0.5]),
}


def changed(name: str, place: tuple[int, ...], value: float) -> dict[str, Tensor]:
    tensor = GOOD[name].clone()
    tensor[place] = value
    return {name: tensor}


WRONG_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    *[
        ({name: 1.5 if name != "vertex_count" else [3, 7]}, TypeError, f"{name} is a (float|list); accepted: a torch.T")
        for name in GOOD
    ],
    ({"target": GOOD["target"].int()}, TypeError, "target has dtype torch.int32; accepted: .*uint8"),
    ({"source": GOOD["source"].bool()}, TypeError, "source has dtype torch.bool; accepted"),
    ({"source": GOOD["source"].double()}, TypeError, "source has dtype torch.float64 and target torch.float32"),
    ({"target": GOOD["target"][0]}, ValueError, r"target has shape \(3, 8, 9\); accepted: \[N, C, H, W\]"),
    ({"target": GOOD["target"][:, :, :0]}, ValueError, r"target has shape \(2, 3, 0, 9\); accepted"),
    ({"source": GOOD["source"][..., :0]}, ValueError, r"source has shape \(4, 3, 5, 0\); accepted"),
    ({"source": GOOD["source"][:, :1]}, ValueError, "source has 1 channels and target 3; accepted: equal numbers"),
    *[
        ({name: GOOD[name].to("meta")}, ValueError, f"{name} is on meta and target on cpu; accepted: the same device")
        for name in GOOD
        if name != "target"
    ],
    ({"vertex_count": torch.tensor(3)}, ValueError, r"vertex_count has shape \(\); accepted: \[P\]"),
    ({"vertices": torch.zeros(2, 8, 2)}, ValueError, r"vertices has shape \(2, 8, 2\); accepted .*\[2, 7, 2\]"),
    ({"transform": torch.zeros(2, 3, 3)}, ValueError, r"transform has shape \(2, 3, 3\); accepted .*\[2, 2, 3\]"),
    *[
        ({name: GOOD[name][:1]}, ValueError, rf"{name} has shape \(1,\); accepted for 2 polygons: \[2\]")
        for name in ("image_index", "source_index", "blur_sigma", "strength")
    ],
    *[
        ({name: GOOD[name].int()}, TypeError, f"{name} has dtype torch.int32; accepted: a floating dtype")
        for name in ("vertices", "transform", "blur_sigma", "strength")
    ],
    *[
        ({name: GOOD[name].float()}, TypeError, f"{name} has dtype torch.float32; accepted: an integer dtype")
        for name in ("vertex_count", "image_index", "source_index")
    ],
    ({"image_index": torch.tensor([True, False])}, TypeError, "image_index has dtype torch.bool; accepted"),
    (changed("vertex_count", (1,), 2), ValueError, r"vertex_count of polygon 1 is 2; accepted: 0 or 3\.\.7"),
    (changed("vertex_count", (0,), 8), ValueError, "vertex_count of polygon 0 is 8; accepted"),
    (changed("vertex_count", (0,), -3), ValueError, "vertex_count of polygon 0 is -3; accepted"),
    (changed("vertices", (1, 4, 0), float("nan")), ValueError, "vertices of polygon 1 is .*nan.*; accepted: finite"),
    (changed("vertices", (0, 2, 1), float("inf")), ValueError, "vertices of polygon 0 is .*inf.*; accepted: finite"),
    (changed("image_index", (0,), 2), ValueError, r"image_index of polygon 0 is 2; accepted: 0\.\.1"),
    (changed("image_index", (1,), -1), ValueError, "image_index of polygon 1 is -1; accepted"),
    (changed("source_index", (1,), 4), ValueError, r"source_index of polygon 1 is 4; accepted: 0\.\.3"),
    (changed("transform", (0, 1, 1), float("nan")), ValueError, "transform of polygon 0 is .*; accepted: finite"),
    (changed("blur_sigma", (1,), -0.5), ValueError, "blur_sigma of polygon 1 is -0.5; accepted: finite .* at least 0"),
    (changed("blur_sigma", (1,), float("inf")), ValueError, "blur_sigma of polygon 1 is inf; accepted"),
    (changed("strength", (0,), 1.5), ValueError, r"strength of polygon 0 is 1.5; accepted: 0\.\.1"),
    (changed("strength", (0,), float("nan")), ValueError, "strength of polygon 0 is nan; accepted"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'; accepted: 'auto', 'reference', 'native', 'triton'"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), WRONG_ARGUMENTS, ids=[message[:60] for *_, message in WRONG_ARGUMENTS]
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        paste_defects(**{**GOOD, **arguments})


def test_a_backend_that_is_not_here_is_an_error() -> None:
    missing = [name for name in ("triton", "native") if name not in available_backends("paste_defects")]
    if not missing:
        pytest.skip("every backend is available here")
    with pytest.raises(RuntimeError, match=f"backend '{missing[0]}' of paste_defects is not available on cpu"):
        paste_defects(**GOOD, backend=missing[0])
