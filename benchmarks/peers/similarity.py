"""Mean SSIM by other packages: all with an 11-tap window of sigma 1.5, whole windows only, images in [0, 1]."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.peers import Peer, compiled, import_submodule

Score = Callable[[Tensor, Tensor], Tensor]


def _pytorch_msssim() -> Score:
    from pytorch_msssim import ssim

    return lambda x, y: ssim(x, y, data_range=1.0)


def _kornia() -> Score:
    from kornia.metrics import ssim

    return lambda x, y: ssim(x, y, 11, padding="valid").mean()


def _torchmetrics() -> Score:
    from torchmetrics.functional.image import structural_similarity_index_measure

    def score(x: Tensor, y: Tensor) -> Tensor:
        # It scores every pixel, with images continued by reflection; only whole windows count here.
        scores: Any = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
        value: Tensor = scores[1][..., 5:-5, 5:-5].mean()
        return value

    return score


def _piq() -> Score:
    ssim = import_submodule("piq", "ssim").ssim
    return lambda x, y: ssim(x, y, data_range=1.0, downsample=False)


def _fused_ssim() -> Score:
    from fused_ssim import fused_ssim

    return lambda x, y: fused_ssim(x, y, padding="valid", train=torch.is_grad_enabled())


def _fussim() -> Score:
    from fussim import check_compatibility, fused_ssim

    compatible, problems = check_compatibility(warn=False)
    if not compatible:
        raise ImportError("; ".join(problems))
    return lambda x, y: fused_ssim(x, y, padding="valid", train=torch.is_grad_enabled())


SSIM_PEERS = (
    Peer("torch.compile(pytorch-msssim)", lambda: compiled(_pytorch_msssim()), "pytorch-msssim"),
    Peer("pytorch-msssim", _pytorch_msssim),
    Peer("kornia", _kornia),
    Peer("torchmetrics", _torchmetrics),
    Peer("piq", _piq),
    Peer("fused-ssim", _fused_ssim, devices=("cuda",)),
    Peer("fussim", _fussim, devices=("cuda",)),
)


def _pytorch_ms_ssim() -> Score:
    from pytorch_msssim import ms_ssim

    return lambda x, y: ms_ssim(x, y, data_range=1.0)


def _piq_ms_ssim() -> Score:
    multi_scale_ssim = import_submodule("piq", "ms_ssim").multi_scale_ssim
    return lambda x, y: multi_scale_ssim(x, y, data_range=1.0)


MS_SSIM_PEERS = (
    Peer("torch.compile(pytorch-msssim)", lambda: compiled(_pytorch_ms_ssim()), "pytorch-msssim"),
    Peer("pytorch-msssim", _pytorch_ms_ssim),
    Peer("piq", _piq_ms_ssim),
)


def plain_aw_ssim(x: Tensor, y: Tensor) -> Tensor:
    """AW-SSIM with equal weights as it is commonly written: depthwise convolutions, moments about zero.

    No package has it.
    """
    channels = x.shape[1]
    offset = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    window = torch.exp(-(offset**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(channels, 1, 1, 11)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, window, groups=channels), window.transpose(2, 3), groups=channels)

    mu_x, mu_y = blur(x), blur(y)
    variance_x = (blur(x * x) - mu_x * mu_x).clamp_min(0) + 1e-8
    variance_y = (blur(y * y) - mu_y * mu_y).clamp_min(0) + 1e-8
    covariance = blur(x * y) - mu_x * mu_y + 1e-8
    deviations = (variance_x * variance_y).sqrt()
    luminance = (2 * mu_x * mu_y + 1e-4) / (mu_x * mu_x + mu_y * mu_y + 1e-4)
    contrast = (2 * deviations + 9e-4) / (variance_x + variance_y + 9e-4)
    structure = (covariance + 4.5e-4) / (deviations + 4.5e-4)
    return (luminance + contrast + structure).mean() / 3


AW_SSIM_PEERS = (
    Peer("torch.compile(plain torch)", lambda: compiled(plain_aw_ssim), "torch"),
    Peer("plain torch", lambda: plain_aw_ssim, "torch"),
)
