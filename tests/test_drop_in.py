"""A changed import is all that moving from another package takes: same calls, same values."""

from typing import Any

import pytest
import pytorch_msssim
import torch
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import ms_ssim, ssim
from twostage_kernels.drop_in import fused_ssim
from twostage_kernels.drop_in import pytorch_msssim as drop_in


def images(*shape: int, data_range: float = 255.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    return data_range * x, data_range * (0.5 * x + 0.4 * torch.rand(shape, generator=generator))


def assert_same(ours: Any, theirs: Any, x: Tensor, y: Tensor, **arguments: Any) -> None:
    """Value and gradient of both images, each scaled as in ``tolerances``."""
    results = []
    for function in (ours, theirs):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = function(a, b, **arguments)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), (a, b))))
    (value, *gradients), (wanted, *wanted_gradients) = results
    assert value.shape == wanted.shape
    assert float((value - wanted).abs().max()) <= tolerance("drop-in value", x.dtype)
    scale = x[0].numel() * 255.0
    for got, truth in zip(gradients, wanted_gradients, strict=True):
        bound = tolerance("drop-in gradient", x.dtype) * max(1.0, float(scale * truth.abs().max()))
        assert float(scale * (got - truth).abs().max()) <= bound


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"size_average": False},
        {"win_size": 7, "win_sigma": 0.8},
        {"K": (0.02, 0.05)},
        {"nonnegative_ssim": True, "size_average": False},
    ],
    ids=str,
)
def test_ssim_is_called_and_answers_like_pytorch_msssim(arguments: dict[str, Any]) -> None:
    assert_same(drop_in.ssim, pytorch_msssim.ssim, *images(2, 3, 40, 33), **arguments)
    ours, theirs = (module.SSIM(data_range=255, **arguments) for module in (drop_in, pytorch_msssim))
    assert_same(ours, theirs, *images(2, 3, 40, 33))


def test_nonnegative_ssim_cuts_channels_off_at_zero() -> None:
    x, _ = images(1, 2, 20, 20)
    y = torch.cat((x[:, :1], 255 - x[:, 1:]), dim=1)  # the second channel scores far below 0
    assert float(drop_in.ssim(x, y, nonnegative_ssim=True)) == pytest.approx(0.5, abs=1e-6)
    assert_same(drop_in.ssim, pytorch_msssim.ssim, x, y, nonnegative_ssim=True)


@pytest.mark.parametrize("arguments", [{}, {"size_average": False}, {"weights": [0.3, 0.7]}, {"win_size": 7}], ids=str)
@pytest.mark.parametrize("size", [(176, 180), (177, 191)], ids=str)
def test_ms_ssim_is_called_and_answers_like_pytorch_msssim(arguments: dict[str, Any], size: tuple[int, int]) -> None:
    assert_same(drop_in.ms_ssim, pytorch_msssim.ms_ssim, *images(2, 3, *size), **arguments)
    ours, theirs = (module.MS_SSIM(data_range=255, **arguments) for module in (drop_in, pytorch_msssim))
    assert_same(ours, theirs, *images(2, 3, *size))


def test_ssim_itself_takes_size_average() -> None:
    x, y = images(3, 1, 20, 21)
    for ours, theirs in ((ssim, pytorch_msssim.ssim), (ms_ssim, pytorch_msssim.ms_ssim)):
        pair = images(3, 1, 170, 171) if ours is ms_ssim else (x, y)
        assert_same(ours, theirs, *pair, data_range=255.0, size_average=True)
        assert_same(ours, theirs, *pair, data_range=255.0, size_average=False)


def test_fused_ssim_pads_with_zeros_by_default() -> None:
    x, y = images(2, 3, 24, 31, data_range=1.0)
    padded = [torch.nn.functional.pad(image, (5, 5, 5, 5)) for image in (x, y)]
    wanted = pytorch_msssim.ssim(*padded, data_range=1.0)
    assert float(fused_ssim.fused_ssim(x, y)) == pytest.approx(float(wanted), abs=tolerance("drop-in value", x.dtype))
    valid = pytorch_msssim.ssim(x, y, data_range=1.0)
    assert float(fused_ssim.fused_ssim(x, y, padding="valid", train=False)) == pytest.approx(
        float(valid), abs=tolerance("drop-in value", x.dtype)
    )


def test_what_is_not_taken_is_named() -> None:
    x, y = images(1, 1, 20, 20)
    with pytest.raises(ValueError, match="win is a Tensor; accepted: None"):
        drop_in.ssim(x, y, win=torch.ones(1, 1, 1, 11))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="spatial_dims is 3; accepted: 2"):
        drop_in.SSIM(spatial_dims=3)
    with pytest.raises(ValueError, match="spatial_dims is 3; accepted: 2"):
        drop_in.MS_SSIM(spatial_dims=3)
