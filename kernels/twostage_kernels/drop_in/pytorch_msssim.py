"""``ssim``, ``ms_ssim``, ``SSIM`` and ``MS_SSIM`` as pytorch-msssim 1.0 has them.

What differs: images of 4 dimensions alone are taken, a window of one's own (``win``) is not, and an image smaller than
the window is an error instead of a warning and another score.
"""
# The argument names are that package's.
# ruff: noqa: N801, N803

from collections.abc import Sequence

import torch
from torch import Tensor

from twostage_kernels import functional
from twostage_kernels.functional.multiscale import LEVEL_WEIGHTS


def ssim(
    X: Tensor,  # [B, C, H, W]
    Y: Tensor,  # [B, C, H, W]
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: None = None,
    K: tuple[float, float] = (0.01, 0.03),
    nonnegative_ssim: bool = False,
) -> Tensor:
    """:func:`twostage_kernels.ssim`: a scalar, or [B] without ``size_average``.

    With ``nonnegative_ssim``, the mean of a channel that is below 0 counts as 0.

    Raises:
        ValueError: ``win`` is given. Otherwise the errors of :func:`twostage_kernels.ssim`.
    """
    _refuse_window(win)
    arguments = {"data_range": data_range, "window_size": win_size, "sigma": win_sigma, "k1": K[0], "k2": K[1]}
    if not nonnegative_ssim:
        return functional.ssim(X, Y, size_average=size_average, **arguments)  # type: ignore[arg-type]
    planes_x, planes_y = (image.flatten(0, 1).unsqueeze(1) for image in (X, Y))
    planes = functional.ssim(planes_x, planes_y, reduction="sample", **arguments)  # type: ignore[arg-type]
    per_sample = planes.clamp_min(0).view(X.shape[:2]).mean(dim=1)
    return per_sample.mean() if size_average else per_sample


def ms_ssim(
    X: Tensor,  # [B, C, H, W]
    Y: Tensor,  # [B, C, H, W]
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: None = None,
    weights: Sequence[float] | None = None,
    K: tuple[float, float] = (0.01, 0.03),
) -> Tensor:
    """:func:`twostage_kernels.ms_ssim`: a scalar, or [B] without ``size_average``.

    Raises:
        ValueError: ``win`` is given. Otherwise the errors of :func:`twostage_kernels.ms_ssim`.
    """
    _refuse_window(win)
    return functional.ms_ssim(
        X,
        Y,
        level_weights=LEVEL_WEIGHTS if weights is None else weights,
        sigma=win_sigma,
        window_size=win_size,
        data_range=data_range,
        k1=K[0],
        k2=K[1],
        size_average=size_average,
    )


class SSIM(torch.nn.Module):
    """:func:`ssim` with its settings kept; ``channel`` and ``spatial_dims`` are told by the images."""

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: tuple[float, float] = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        _refuse_volumes(spatial_dims)
        self.settings = (data_range, size_average, win_size, win_sigma, None, K, nonnegative_ssim)

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return ssim(X, Y, *self.settings)


class MS_SSIM(torch.nn.Module):
    """:func:`ms_ssim` with its settings kept; ``channel`` and ``spatial_dims`` are told by the images."""

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | None = None,
        K: tuple[float, float] = (0.01, 0.03),
    ) -> None:
        super().__init__()
        _refuse_volumes(spatial_dims)
        self.settings = (data_range, size_average, win_size, win_sigma, None, weights, K)

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return ms_ssim(X, Y, *self.settings)


def _refuse_window(win: object) -> None:
    if win is not None:
        raise ValueError(f"win is a {type(win).__name__}; accepted: None (the Gaussian of win_size and win_sigma)")


def _refuse_volumes(spatial_dims: int) -> None:
    if spatial_dims != 2:
        raise ValueError(f"spatial_dims is {spatial_dims!r}; accepted: 2")
