"""LPIPS against its published values, its textbook form, and what users of it have suffered from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lpips_oracles import random_weights, textbook_lpips, textbook_map
from PIL import Image
from torch import Tensor

from twostage.lpips import LPIPS, load_lpips_weights
from twostage_kernels import feature_distance


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def double_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def model(weights: dict[str, Tensor]) -> LPIPS:
    return LPIPS(weights)


@pytest.fixture(scope="module")
def real_model(lpips_weights: Path) -> LPIPS:
    return LPIPS(load_lpips_weights(lpips_weights))


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image batch and a version of it with noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    return (target + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1), target


def read(path: Path) -> Tensor:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


# ---------------------------------------------------------------- published values


@pytest.mark.parametrize(
    ("name", "published"), [("I03", 0.7237), ("I04", 0.2572), ("I06", 0.0508), ("I08", 0.0521), ("I19", 0.4253)]
)
def test_published_values_come_out(real_model: LPIPS, lpips_reference: Path, name: str, published: float) -> None:
    reference, distorted = (read(lpips_reference / folder / f"{name}.bmp") for folder in ("ref_dir", "dist_dir"))
    assert round(real_model(distorted, reference).item(), 4) == published


@pytest.mark.parametrize(("name", "published"), [("ex_p0", 0.722), ("ex_p1", 0.138)])
def test_example_pair_of_the_authors_comes_out(
    real_model: LPIPS, lpips_reference: Path, name: str, published: float
) -> None:
    pair = read(lpips_reference / f"{name}.png"), read(lpips_reference / "ex_ref.png")
    assert round(real_model(*pair).item(), 3) == published


@pytest.mark.parametrize(("name", "published"), [("I04", 0.2572), ("I08", 0.0521)])
def test_autocast_keeps_three_digits_of_a_published_value(
    real_model: LPIPS, lpips_reference: Path, name: str, published: float
) -> None:
    reference, distorted = (read(lpips_reference / folder / f"{name}.bmp") for folder in ("ref_dir", "dist_dir"))
    distorted.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        distance = real_model(distorted, reference)
    distance.backward()
    assert distance.dtype == torch.float32
    assert distance.item() == pytest.approx(published, rel=2e-3)
    assert distorted.grad is not None
    assert distorted.grad.isfinite().all()


def test_real_gray_photograph_equals_its_rgb_copy(real_model: LPIPS, lpips_reference: Path) -> None:
    prediction, target = (read(lpips_reference / f / "I19.bmp")[:, 1:2] for f in ("dist_dir", "ref_dir"))
    repeated = real_model(prediction.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    torch.testing.assert_close(real_model(prediction, target), repeated, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- the textbook


@settings(max_examples=15)
@given(height=st.integers(31, 70), width=st.integers(31, 70), seed=st.integers(0, 2**32))
def test_value_and_map_equal_the_textbook(
    model: LPIPS, weights: dict[str, Tensor], height: int, width: int, seed: int
) -> None:
    pair = images(2, 3, height, width, seed=seed)
    mine, textbook = model(*pair, reduction="sample"), textbook_lpips(weights, *pair)
    torch.testing.assert_close(mine, textbook, rtol=1e-5, atol=0)
    torch.testing.assert_close(model(*pair, reduction="none"), textbook_map(weights, *pair), rtol=1e-4, atol=1e-5)


# Where rounding decides which pixel of a pool is the largest, the gradient in float32 jumps; so float64.
@settings(max_examples=8)
@given(height=st.integers(31, 50), width=st.integers(31, 50), gray=st.booleans(), seed=st.integers(0, 2**32))
def test_gradient_equals_the_textbook(
    double_weights: dict[str, Tensor], height: int, width: int, gray: bool, seed: int
) -> None:
    shape = (1, 1 if gray else 3, height, width)
    prediction, target = (image.double().requires_grad_() for image in images(*shape, seed=seed))
    mine = LPIPS(double_weights)(prediction, target)
    textbook = textbook_lpips(double_weights, prediction.expand(1, 3, -1, -1), target.expand(1, 3, -1, -1)).mean()
    # The place of the epsilon, 1e-10, makes the difference.
    torch.testing.assert_close(mine, textbook, rtol=1e-9, atol=0)
    (my_gradient,) = torch.autograd.grad(mine, prediction)
    (textbook_gradient,) = torch.autograd.grad(textbook, prediction)
    torch.testing.assert_close(my_gradient, textbook_gradient, rtol=1e-7, atol=1e-12)


def test_gradient_of_a_layer_is_the_finite_difference() -> None:
    generator = torch.Generator().manual_seed(3)
    activation, target = (torch.rand(2, 5, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    head = torch.rand(1, 5, 1, 1, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(feature_distance, (activation.requires_grad_(), target, head))


@settings(max_examples=15)
@given(height=st.integers(31, 70), width=st.integers(31, 70), seed=st.integers(0, 2**32))
def test_gray_image_equals_its_rgb_copy(model: LPIPS, height: int, width: int, seed: int) -> None:
    gray, target = images(2, 1, height, width, seed=seed)
    for feature, repeated in zip(model.features(gray), model.features(gray.repeat(1, 3, 1, 1)), strict=True):
        torch.testing.assert_close(feature, repeated, rtol=0, atol=1e-5)
    repeated_distance = model(gray.repeat(1, 3, 1, 1), target.repeat(1, 3, 1, 1))
    torch.testing.assert_close(model(gray, target), repeated_distance, rtol=1e-5, atol=0)


def test_features_have_unit_length(model: LPIPS) -> None:
    for feature in model.features(images(2, 1, 64, 80)[0]):
        length = feature.square().sum(1)
        torch.testing.assert_close(length, torch.ones_like(length), rtol=1e-4, atol=0)


# ---------------------------------------------------------------- zero features


@pytest.mark.parametrize("factor", [0.0, 1e-30], ids=["zero", "so small that the squares vanish"])
def test_gradient_is_finite_where_features_vanish(factor: float) -> None:
    weights = random_weights()
    weights["features.0.weight"] *= factor
    for name in weights:
        if name.endswith(".bias"):
            weights[name].fill_(0 if name == "features.0.bias" else -1e-3)
    prediction, target = images(1, 3, 40, 40)
    prediction.requires_grad_()
    textbook = textbook_lpips(weights, prediction, target).sum()
    (textbook_gradient,) = torch.autograd.grad(textbook, prediction)
    assert factor == 0 or not textbook_gradient.isfinite().all(), "this input does not show the defect"
    distance = LPIPS(weights)(prediction, target)
    (gradient,) = torch.autograd.grad(distance, prediction)
    assert distance.item() == pytest.approx(0, abs=1e-10)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e-30])
def test_gradient_is_finite_where_only_the_prediction_has_no_features(value: float) -> None:
    target, head = torch.full((1, 4, 2, 2), 0.5), torch.ones(1, 4, 1, 1)
    activation = torch.full((1, 4, 2, 2), value, requires_grad=True)
    unit = activation / (activation.square().sum(1, keepdim=True).sqrt() + 1e-10)
    (textbook_gradient,) = torch.autograd.grad((unit - target).square().sum(), activation)
    assert not textbook_gradient.isfinite().any(), "this input does not show the defect"
    distance = feature_distance(activation, target, head)
    (gradient,) = torch.autograd.grad(distance.sum(), activation)
    torch.testing.assert_close(distance, torch.ones(1, 1, 2, 2))
    assert gradient.isfinite().all()


# ---------------------------------------------------------------- contract


def test_equal_images_are_at_distance_zero(model: LPIPS) -> None:
    image, _ = images(2, 3, 50, 60)
    for reduction in ("mean", "sample", "none"):
        assert model(image, image.clone(), reduction=reduction).abs().max() == 0


def test_reductions_agree(model: LPIPS) -> None:
    prediction, target = images(3, 1, 40, 56)
    sample = model(prediction, target, reduction="sample")
    assert sample.shape == (3,)
    assert sample.unique().numel() == 3
    torch.testing.assert_close(model(prediction, target), sample.mean())
    for index in range(3):
        alone = model(prediction[index : index + 1], target[index : index + 1], reduction="sample")
        torch.testing.assert_close(alone, sample[index : index + 1], rtol=1e-5, atol=0)


def test_map_shows_where_the_images_differ(model: LPIPS) -> None:
    _, target = images(2, 1, 128, 160)
    prediction = target.clone()
    prediction[1, :, 90:110, 20:40] = 0
    result = model(prediction, target, reduction="none")
    assert result.shape == (2, 1, 128, 160)
    assert result[0].abs().max() == 0
    row, column = divmod(int(result[1].argmax()), 160)
    assert 80 <= row < 120
    assert 10 <= column < 50
    assert result[1, :, :20, 120:].max() < 0.05 * result.max()


def test_precomputed_features_give_the_same(model: LPIPS) -> None:
    prediction, target = images(2, 1, 64, 64)
    for reduction in ("mean", "sample", "none"):
        expected = model(prediction, target, reduction=reduction)
        precomputed = model(prediction, model.features(target), reduction=reduction)
        torch.testing.assert_close(precomputed, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precomputed", [False, True])
def test_gradient_flows_to_the_prediction_alone(model: LPIPS, precomputed: bool) -> None:
    prediction, target = (image.requires_grad_() for image in images(1, 1, 40, 40))
    wanted = model.features(target) if precomputed else target
    model(prediction, wanted).backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().max() > 0
    assert target.grad is None
    assert not model(prediction.detach(), wanted).requires_grad


def test_nothing_is_kept_for_the_target(model: LPIPS) -> None:
    prediction, target = (image.requires_grad_() for image in images(1, 1, 64, 64))

    def kept(wanted: Tensor | tuple[Tensor, ...]) -> int:
        sizes = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(prediction, wanted)
        return sum(sizes)

    assert kept(target) == kept(model.features(target))


def test_weights_are_frozen(model: LPIPS) -> None:
    assert list(model.parameters()) == []
    assert not any(buffer.requires_grad for buffer in model.buffers())
    assert not model.training


def test_state_dict_carries_the_whole_network(model: LPIPS) -> None:
    other = LPIPS(random_weights(seed=9))
    prediction, target = images(1, 1, 40, 40)
    before = other(prediction, target)
    other.load_state_dict(model.state_dict())
    assert not torch.equal(other(prediction, target), before)
    assert torch.equal(other(prediction, target), model(prediction, target))


def test_weights_given_are_neither_changed_nor_shared(weights: dict[str, Tensor]) -> None:
    given_weights = {name: tensor.clone() for name, tensor in weights.items()}
    model = LPIPS(given_weights)
    prediction, target = images(1, 1, 40, 40)
    before = model(prediction, target)
    for name, tensor in given_weights.items():
        assert torch.equal(tensor, weights[name])
        tensor.zero_()
    assert torch.equal(model(prediction, target), before)


def test_result_does_not_depend_on_strides(model: LPIPS) -> None:
    prediction, target = images(2, 3, 40, 50)
    expected = model(prediction, target)
    wide = torch.full((2, 3, 40, 100), float("nan"))
    wide[..., ::2] = prediction
    strided = wide[..., ::2]
    assert torch.equal(model(strided, target), expected)
    channels_last = [image.contiguous(memory_format=torch.channels_last) for image in (prediction, target)]
    assert torch.equal(model(*channels_last), expected)


def test_inputs_are_not_changed_and_the_result_repeats(model: LPIPS) -> None:
    prediction, target = images(2, 1, 64, 64)
    copies = prediction.clone(), target.clone()
    features = model.features(target)
    feature_copies = [feature.clone() for feature in features]
    first = model(prediction, features, reduction="none")
    assert torch.equal(model(prediction, features, reduction="none"), first)
    assert torch.equal(prediction, copies[0])
    assert torch.equal(target, copies[1])
    assert all(map(torch.equal, features, feature_copies))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_floating_dtype_are_taken(model: LPIPS, dtype: torch.dtype) -> None:
    prediction, target = (image.to(dtype) for image in images(1, 1, 40, 40))
    result = model(prediction, target)
    assert result.dtype == torch.float32
    assert torch.equal(result, model(prediction.float(), target.float()))


def test_smallest_image(model: LPIPS) -> None:
    prediction, target = images(1, 1, 31, 31)
    assert [tuple(feature.shape[2:]) for feature in model.features(target)] == [(7, 7), (3, 3), (1, 1), (1, 1), (1, 1)]
    assert model(prediction, target) > 0


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (torch.zeros(3, 40, 40), torch.zeros(3, 40, 40), r"shape \(3, 40, 40\); accepted: \[B, 1, H, W\]"),
        (torch.zeros(1, 2, 40, 40), torch.zeros(1, 2, 40, 40), r"shape \(1, 2, 40, 40\)"),
        (torch.zeros(1, 1, 40, 40), torch.zeros(1, 3, 40, 40), r"\(1, 3, 40, 40\).*\(1, 1, 40, 40\)"),
        (torch.zeros(2, 1, 40, 40), torch.zeros(1, 1, 40, 40), r"target has shape.*\(1, 1, 40, 40\).*\(2, 1, 40, 40\)"),
        (torch.zeros(1, 1, 40, 30), torch.zeros(1, 1, 40, 30), "40x30 pixels; accepted: at least 31x31"),
        (torch.zeros(1, 1, 9, 90), torch.zeros(1, 1, 9, 90), "9x90 pixels; accepted: at least 31x31"),
        (torch.zeros(1, 1, 40, 40).byte(), torch.zeros(1, 1, 40, 40).byte(), r"torch\.uint8; accepted: a floating"),
        (torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40).half(), r"target has dtype torch\.float16.*float32"),
        (torch.zeros(1, 1, 40, 40, device="meta"), torch.zeros(1, 1, 40, 40), "target has device cpu.*meta"),
        (torch.zeros(1, 1, 40, 40, device="meta"), torch.zeros(1, 1, 40, 40, device="meta"), "on meta; accepted: cpu"),
    ],
)
def test_images_that_do_not_fit_are_named(model: LPIPS, prediction: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(prediction, target)


def test_precomputed_features_that_do_not_fit_are_named(model: LPIPS) -> None:
    prediction, target = images(2, 1, 40, 40)
    features = model.features(target)
    cases: list[tuple[tuple[Any, ...], str]] = [
        (features[:4], r"feature shapes .*accepted: that of prediction"),
        (model.features(target[:1]), r"shapes \[\(1, 64, 9, 9\).*\[\(2, 64, 9, 9\)"),
        (tuple(feature.half() for feature in features), r"dtype torch\.float16.*float32"),
        (tuple(feature.to("meta") for feature in features), "device meta.*cpu"),
    ]
    for wanted, message in cases:
        with pytest.raises(ValueError, match=message):
            model(prediction, wanted)


def test_unknown_reduction_is_named(model: LPIPS) -> None:
    prediction, target = images(1, 1, 40, 40)
    with pytest.raises(ValueError, match="reduction is 'sum'; accepted: mean, sample, none"):
        model(prediction, target, reduction="sum")


def test_features_refuse_what_is_no_image(model: LPIPS) -> None:
    with pytest.raises(ValueError, match=r"image has shape \(40, 40\)"):
        model.features(torch.zeros(40, 40))
