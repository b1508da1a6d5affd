"""What a mask hides has no part in a score; the L1 term is the mean absolute difference of what is seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from similarity_cases import (
    Array,
    assert_close,
    assert_gradient_close,
    backend_cases,
    numeric_pairs,
    score,
    value_and_gradients,
    value_tolerance,
)
from tolerances import tolerance
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage_kernels import aw_ssim, aw_ssim_loss, ssim, ssim_loss

UNEVEN = (0.2, 0.5, 0.3)
Weights = tuple[float, float, float] | None
CASES = pytest.mark.parametrize(
    ("device", "backend", "weights"),
    [
        pytest.param(*case.values, weights, id=f"{op}-{case.id}")
        for op, weights in (("aw_ssim", UNEVEN), ("ssim", None))
        for case in backend_cases(op)
    ],
)


def images(*shape: int, seed: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    return x, 0.4 * x + 0.5 * torch.rand(shape, generator=generator)


def holes(batch: int, height: int, width: int, seed: int = 12) -> Tensor:
    """A mask of weights with blocks, scattered pixels and a border cut away."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, 1, height, width, generator=generator)
    mask = torch.where(mask < 0.3, 0, mask)
    mask[:, :, height // 3 : height // 3 + 14, : width // 2] = 0
    mask[0, :, :, -2:] = 0
    return mask


def loss(weights: Weights) -> Callable[..., Tensor]:
    if weights is None:
        return ssim_loss
    return lambda x, y, **arguments: aw_ssim_loss(x, y, weights=weights, **arguments)


def exact_map(x: Array, y: Array, mask: Array, sigma: float, padding: str, weights: Weights) -> tuple[Array, Array]:
    """Score and coverage of every window of one plane, window by window: Eq. 2-8 with weights times mask."""
    if padding == "same":
        x, y, mask = np.pad(x, 5), np.pad(y, 5), np.pad(mask, 5, mode="edge")
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2.0 * sigma**2))
    window /= window.sum()
    rows, columns = x.shape[0] - 10, x.shape[1] - 10
    scores, coverage = np.empty((rows, columns)), np.empty((rows, columns))
    c1, c2, noise = 0.01**2, 0.03**2, 1e-8
    for i in range(rows):
        for j in range(columns):
            seen = window * mask[i : i + 11, j : j + 11]
            coverage[i, j] = seen.sum()
            if coverage[i, j] < 1e-8:
                scores[i, j] = 1.0 if weights is None else sum(weights)
                continue
            seen = seen / coverage[i, j]
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mu_x, mu_y = (seen * a).sum(), (seen * b).sum()
            var_x, var_y = (seen * (a - mu_x) ** 2).sum(), (seen * (b - mu_y) ** 2).sum()
            covariance = (seen * (a - mu_x) * (b - mu_y)).sum()
            luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
            if weights is None:
                scores[i, j] = luminance * (2 * covariance + c2) / (var_x + var_y + c2)
                continue
            root = np.sqrt((var_x + noise) * (var_y + noise))
            contrast = (2 * root + c2) / (var_x + var_y + 2 * noise + c2)
            structure = (covariance + noise + c2 / 2) / (root + c2 / 2)
            scores[i, j] = weights[0] * luminance + weights[1] * contrast + weights[2] * structure
    return scores, coverage


@pytest.mark.parametrize("padding", ["valid", "same"])
@CASES
def test_map_and_means_are_those_of_the_definition(device: str, backend: str, weights: Weights, padding: str) -> None:
    x, y = images(2, 1, 27, 25)
    mask, sigma = holes(2, 27, 25), (0.7, 1.8)
    planes = []
    for i in range(2):
        a, b, seen = (image[i, 0].double().numpy() for image in (x, y, mask))
        planes.append(exact_map(a, b, seen, sigma[i], padding, weights))
    scores, coverage = (np.stack(parts)[:, None] for parts in zip(*planes, strict=True))
    arguments: dict[str, Any] = {"mask": mask.to(device), "padding": padding, "backend": backend}
    arguments["sigma"] = torch.tensor(sigma, device=device)
    pair = x.to(device), y.to(device)
    name = value_tolerance(device, backend, "masked value")
    assert_close(score(weights)(*pair, reduction="none", **arguments), scores, name, x.dtype)
    per_sample = (scores * coverage).sum(axis=(1, 2, 3)) / coverage.sum(axis=(1, 2, 3))
    assert_close(score(weights)(*pair, reduction="sample", **arguments), per_sample, "masked value", x.dtype)
    mean = np.asarray((scores * coverage).sum() / coverage.sum())
    assert_close(score(weights)(*pair, reduction="mean", **arguments), mean, "masked value", x.dtype)


@pytest.mark.parametrize("reduction", ["mean", "sample", "none"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@CASES
def test_a_mask_of_ones_hides_nothing(
    device: str, backend: str, weights: Weights, padding: str, reduction: str
) -> None:
    pair = [image.to(device) for image in images(2, 3, 21, 18)]
    arguments: dict[str, Any] = {"padding": padding, "reduction": reduction, "backend": backend}
    plain = value_and_gradients(score(weights), *pair, **arguments)
    for mask in (torch.ones(2, 1, 21, 18, dtype=torch.bool), torch.ones(2, 1, 21, 18, dtype=torch.float16)):
        masked = value_and_gradients(score(weights), *pair, mask=mask.to(device), **arguments)
        assert_close(masked[0], plain[0], "similarity value", torch.float32)
        for got, wanted in zip(masked[1:], plain[1:], strict=True):
            assert_gradient_close(got, wanted, plain[0].numel(), torch.float32)


@CASES
def test_what_is_hidden_changes_no_bit(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(2, 2, 30, 41))
    mask = holes(2, 30, 41).to(device)
    hidden = (mask == 0).expand_as(x)
    for reduction in ("mean", "sample", "none"):
        arguments: dict[str, Any] = {"mask": mask, "reduction": reduction, "backend": backend}
        before = value_and_gradients(score(weights), x, y, **arguments)
        for junk in (float("nan"), float("inf"), -1e30):
            spoilt = (torch.where(hidden, junk, image) for image in (x, y))
            after = value_and_gradients(score(weights), *spoilt, **arguments)
            assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        assert all(int((gradient * hidden).count_nonzero()) == 0 for gradient in before[1:])


@CASES
def test_nothing_seen_scores_as_equal_images_do(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(3, 1, 16, 17))
    mask = torch.ones(3, 1, 16, 17, device=device)
    mask[1] = 0
    per_sample, grad_x, grad_y = value_and_gradients(
        score(weights), x, y, mask=mask, reduction="sample", backend=backend
    )
    assert float(per_sample[1]) == pytest.approx(1.0, abs=tolerance("similarity value", x.dtype))
    assert int(grad_x[1].count_nonzero()) == int(grad_y[1].count_nonzero()) == 0
    mean = score(weights)(x, y, mask=mask, backend=backend)
    assert float(mean) == pytest.approx(float(per_sample[[0, 2]].mean()), abs=tolerance("similarity value", x.dtype))
    for l1_weight in (0.0, 0.3):
        nothing, grad_x, _ = value_and_gradients(
            loss(weights), x, y, mask=torch.zeros_like(mask), l1_weight=l1_weight, backend=backend
        )
        assert float(nothing) == pytest.approx(0.0, abs=tolerance("similarity value", x.dtype))
        assert int(grad_x.count_nonzero()) == 0


@pytest.mark.parametrize("name", ["0.5 + 1e-4 noise", "250 +- 0.02 of 255", "ramp + 1e-4 noise", "equal", "black"])
@CASES
def test_digits_are_kept_beside_what_is_hidden(device: str, backend: str, weights: Weights, name: str) -> None:
    pair = numeric_pairs()[name]
    mask = torch.ones(2, 1, 24, 24)
    mask[:, :, 8:15, 5:17] = 0
    arguments: dict[str, Any] = {"data_range": pair.data_range}
    wanted = value_and_gradients(
        score(weights), pair.x.double(), pair.y.double(), mask=mask.double(), backend="reference", **arguments
    )
    got = value_and_gradients(
        score(weights), pair.x.to(device), pair.y.to(device), mask=mask.to(device), backend=backend, **arguments
    )
    assert_close(got[0], wanted[0], "masked value", torch.float32)
    scale = 2 * 14 * 14 * pair.data_range
    for gradient, truth in zip(got[1:], wanted[1:], strict=True):
        assert_gradient_close(gradient, truth, scale, torch.float32, "masked gradient")


@st.composite
def masked_cases(draw: st.DrawFn) -> dict[str, Any]:
    window_size = draw(st.sampled_from([1, 3, 7, 11, 13]))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    height, width = (draw(st.integers(window_size, window_size + 30)) for _ in range(2))
    x, y = images(batch, channels, height, width, seed=draw(st.integers(0, 2**20)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    mask = torch.rand(batch, 1, height, width, generator=generator)
    mask = torch.where(mask < draw(st.sampled_from([0.0, 0.4, 0.8])), 0, mask)
    # A window that sees a pixel or two knows its variance to no digit worth comparing.
    seen = F.avg_pool2d((mask > 0).float(), window_size, stride=1) * window_size**2
    assume(window_size == 1 or not bool(((seen > 0.5) & (seen < 2.5)).any()))
    sigma = torch.tensor(draw(st.lists(st.floats(0.8, 6), min_size=batch, max_size=batch)))
    return {
        "x": x,
        "y": y,
        "mask": mask,
        "sigma": sigma,
        "window_size": window_size,
        "padding": draw(st.sampled_from(["valid", "same"])),
        "l1_weight": draw(st.sampled_from([0.0, 0.2, 1.0])),
    }


@CASES
@given(case=masked_cases())
def test_loss_and_gradients_are_the_reference_s(
    device: str, backend: str, weights: Weights, case: dict[str, Any]
) -> None:
    case = dict(case)
    x, y, mask, sigma = (case.pop(name) for name in ("x", "y", "mask", "sigma"))
    wanted = value_and_gradients(
        loss(weights),
        x.double(),
        y.double(),
        mask=mask.double(),
        sigma=sigma.double(),
        backend="reference",
        **case,
    )
    try:
        got = value_and_gradients(
            loss(weights),
            x.to(device),
            y.to(device),
            mask=mask.to(device),
            sigma=sigma.to(device),
            backend=backend,
            **case,
        )
    except ValueError as error:
        assume("does not take this" not in str(error))
        raise
    assert_close(got[0], wanted[0], "masked value", torch.float32)
    for gradient, truth in zip(got[1:], wanted[1:], strict=True):
        assert_gradient_close(gradient, truth, float(x.numel()), torch.float32, "masked gradient")


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@CASES
def test_l1_term_is_the_mean_absolute_difference(
    device: str, backend: str, weights: Weights, data_range: float
) -> None:
    x, y = (data_range * image.to(device) for image in images(2, 3, 40, 21))
    y[:, :, :8] = x[:, :, :8]  # equal pixels: the derivative there is 0

    def composed(x: Tensor, y: Tensor) -> Tensor:
        difference = (x - y).abs().mean() / data_range
        return 0.8 * loss(weights)(x, y, data_range=data_range, backend=backend) + 0.2 * difference

    wanted = value_and_gradients(composed, x, y)
    got = value_and_gradients(loss(weights), x, y, data_range=data_range, l1_weight=0.2, backend=backend)
    assert_close(got[0], wanted[0], "similarity value", x.dtype)
    for gradient, truth in zip(got[1:], wanted[1:], strict=True):
        assert_gradient_close(gradient, truth, x.numel() * data_range, x.dtype)


@CASES
def test_l1_term_without_a_gradient_is_the_same(device: str, backend: str, weights: Weights) -> None:
    x, y = (image.to(device) for image in images(1, 2, 33, 300))
    with_gradient, *_ = value_and_gradients(loss(weights), x, y, l1_weight=0.7, backend=backend)
    without = loss(weights)(x, y, l1_weight=0.7, backend=backend)
    assert_close(without, with_gradient, "similarity value", x.dtype)


def test_reference_derivatives_are_right() -> None:
    pair = [image.double().requires_grad_() for image in images(2, 1, 13, 14)]
    mask = holes(2, 13, 14).double()
    for reduction in ("mean", "sample", "none"):
        for function in (aw_ssim, ssim):
            assert torch.autograd.gradcheck(
                lambda x, y, f=function, r=reduction: f(x, y, mask=mask, reduction=r, backend="reference"),
                pair,
                atol=1e-6,
                fast_mode=True,
            )
    assert torch.autograd.gradcheck(
        lambda x, y: ssim_loss(x, y, mask=mask, l1_weight=0.5, backend="reference"), pair, atol=1e-6, fast_mode=True
    )


@pytest.mark.parametrize("reduction", ["sample", "none"])
@CASES
def test_an_empty_batch_is_empty(device: str, backend: str, weights: Weights, reduction: str) -> None:
    x = torch.rand(0, 2, 12, 13, device=device, requires_grad=True)
    result = score(weights)(x, x.detach(), reduction=reduction, backend=backend)
    assert result.shape == ((0,) if reduction == "sample" else (0, 2, 2, 3))
    result.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@CASES
def test_the_mean_of_an_empty_batch_is_nan_as_torch_has_it(device: str, backend: str, weights: Weights) -> None:
    x = torch.rand(0, 2, 12, 13, device=device)
    assert bool(score(weights)(x, x, backend=backend).isnan())
    assert bool(loss(weights)(x, x, backend=backend).isnan())
