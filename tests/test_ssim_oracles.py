"""``ssim`` against packages nobody here wrote."""

import numpy as np
import pytest
import pytorch_msssim
import torch
from similarity_cases import assert_gradient_close, backend_cases, value_and_gradients
from skimage.metrics import structural_similarity
from tolerances import tolerance
from torch import Tensor

from twostage_kernels import ssim

BACKENDS = backend_cases("ssim")
RANGES = pytest.mark.parametrize("data_range", [1.0, 255.0, 65535.0])


def images(shape: tuple[int, ...], data_range: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A texture and a noisy, brightened copy of it, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    y = 0.6 * x + 0.1 + 0.3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return x * data_range, y * data_range


@RANGES
@pytest.mark.parametrize(("device", "backend"), BACKENDS)
def test_value_and_gradient_are_those_of_pytorch_msssim(device: str, backend: str, data_range: float) -> None:
    x, y = (image.to(device) for image in images((2, 3, 23, 17), data_range))
    value, grad_x, grad_y = value_and_gradients(ssim, x, y, data_range=data_range, backend=backend)
    peer_value, peer_x, peer_y = value_and_gradients(pytorch_msssim.ssim, x, y, data_range=data_range)
    assert value.item() == pytest.approx(peer_value.item(), abs=tolerance("peer value", x.dtype))
    scale = 2 * 3 * 13 * 7 * data_range
    for gradient, peer in ((grad_x, peer_x), (grad_y, peer_y)):
        assert_gradient_close(gradient, peer, scale, x.dtype, "peer gradient")


@pytest.mark.parametrize(("device", "backend"), BACKENDS)
@pytest.mark.parametrize(("window_size", "sigma", "k1", "k2"), [(7, 0.8, 0.02, 0.05), (15, 3.0, 0.01, 0.4)])
def test_window_sigma_and_constants_are_those_of_pytorch_msssim(
    device: str, backend: str, window_size: int, sigma: float, k1: float, k2: float
) -> None:
    x, y = (image.to(device) for image in images((2, 1, 20, 19), 1.0))
    got = ssim(
        x, y, sigma=sigma, window_size=window_size, k1=k1, k2=k2, data_range=1.0, reduction="sample", backend=backend
    )
    peer = pytorch_msssim.ssim(
        x, y, data_range=1.0, size_average=False, win_size=window_size, win_sigma=sigma, K=(k1, k2)
    )
    assert float((got - peer).abs().max()) <= tolerance("peer value", x.dtype)


@RANGES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("device", "backend"), BACKENDS)
def test_map_is_that_of_scikit_image(device: str, backend: str, dtype: torch.dtype, data_range: float) -> None:
    x, y = (image.to(device, dtype) for image in images((1, 3, 21, 26), data_range, seed=1))
    got = ssim(x, y, data_range=data_range, reduction="none", backend=backend)[0].double().cpu().numpy()
    mean, peer = structural_similarity(  # type: ignore[no-untyped-call]
        x[0].double().cpu().numpy(),
        y[0].double().cpu().numpy(),
        data_range=data_range,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        truncate=3.5,
        use_sample_covariance=False,
        full=True,
    )
    # scikit-image mirrors the border: only whole windows compare.
    assert np.abs(got - peer[:, 5:-5, 5:-5]).max() <= tolerance("peer value", dtype)
    assert got.mean() == pytest.approx(mean, abs=tolerance("peer value", dtype))
