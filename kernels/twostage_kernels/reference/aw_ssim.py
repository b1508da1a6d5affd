"""AW-SSIM (Shiferaw & Yao 2024, Eq. 2-8) and classic SSIM, pixel by pixel."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage_kernels.reference.gaussian import gaussian_window

# Contrast and structure divide by the standard deviations, whose slope is infinite where an image is flat. Both
# images are therefore taken to carry one common noise of this variance (in units of data_range squared): every
# root stays above zero, x == y still gives 1, and no value can exceed 1 (but for the last bit). Its standard
# deviation, 1e-4 of the range, is a tenth of what rounding to 8 bits adds.
COMMON_NOISE_VARIANCE = 1e-8


# An image as two parts whose sum it is. The first holds pixels as they came, so that differences of neighbours keep
# every digit; the second is as small as the window's contrast.
_Split = tuple[Tensor, Tensor]


class Statistics(NamedTuple):
    """Of every window, [B, C, H', W'] each."""

    mu_x: Tensor
    mu_y: Tensor
    variance_x: Tensor
    variance_y: Tensor
    covariance: Tensor
    coverage: Tensor | None  # [B, 1, H', W']: the part of the window that is seen through a mask


def _tap_weights(window: Tensor, mask: Tensor | None, dim: int) -> tuple[list[Tensor], Tensor | None]:
    """The weight of every tap of a sliding window, and their sum where a mask makes it differ from 1.

    With a mask the weights are divided by that sum; of a window that sees nothing they are all 0.
    """
    taps = window.shape[1]
    weights = [window[:, tap].view(-1, 1, 1, 1) for tap in range(taps)]
    if mask is None:
        return weights, None
    length = mask.shape[dim] - taps + 1
    seen = [weight * mask.narrow(dim, tap, length) for tap, weight in enumerate(weights)]
    coverage = torch.stack(seen).sum(dim=0)
    divisor = torch.where(coverage > 0, coverage, 1)
    return [weight / divisor for weight in seen], coverage


def _window_moments(
    x: _Split, y: _Split, weights: list[Tensor], dim: int
) -> tuple[_Split, _Split, Tensor, Tensor, Tensor]:
    """Weighted means, variances and covariance over a sliding window along one dimension.

    Deviations are taken from the window's centre pixel first and from its mean then, so that neither a large offset
    nor a ramp costs digits.
    """
    taps = len(weights)
    length = x[0].shape[dim] - taps + 1

    def difference(image: _Split, tap: int, origin: _Split) -> Tensor:
        pixel, rest = (part.narrow(dim, tap, length) for part in image)
        return (pixel - origin[0]) + (rest - origin[1])

    def mean_of(image: _Split) -> _Split:
        pixel, rest = (part.narrow(dim, taps // 2, length) for part in image)
        offset = rest
        for tap, weight in enumerate(weights):
            if tap != taps // 2:
                offset = offset + weight * difference(image, tap, (pixel, rest))
        return pixel, offset

    mean_x, mean_y = mean_of(x), mean_of(y)
    variance_x, variance_y, covariance = (torch.zeros_like(mean_x[0]) for _ in range(3))
    for tap, weight in enumerate(weights):
        deviation_x, deviation_y = difference(x, tap, mean_x), difference(y, tap, mean_y)
        variance_x = variance_x + weight * deviation_x * deviation_x
        variance_y = variance_y + weight * deviation_y * deviation_y
        covariance = covariance + weight * deviation_x * deviation_y
    return mean_x, mean_y, variance_x, variance_y, covariance


def _weighted_sum(image: Tensor, weights: list[Tensor], dim: int) -> Tensor:
    length = image.shape[dim] - len(weights) + 1
    total = weights[0] * image.narrow(dim, 0, length)
    for tap, weight in enumerate(weights[1:], start=1):
        total = total + weight * image.narrow(dim, tap, length)
    return total


def local_statistics(
    x: Tensor, y: Tensor, sigma: Tensor, window_size: int, padding: str, mask: Tensor | None = None
) -> Statistics:
    """mu_x, mu_y, sigma_x^2, sigma_y^2 and sigma_xy under a separable Gaussian window times the mask.

    Within-row and between-row parts are added (the law of total variance), so every variance is a sum of squares
    and never negative.
    """
    window = gaussian_window(window_size, sigma)
    if padding == "same":
        margins = (window_size // 2,) * 4
        x, y = F.pad(x, margins), F.pad(y, margins)
        # The zeros beyond the border are seen as far as the border itself is.
        mask = None if mask is None else F.pad(mask, margins, mode="replicate")
    nothing = torch.zeros_like(x)
    along_rows, row_coverage = _tap_weights(window, mask, dim=3)
    row_x, row_y, *within = _window_moments((x, nothing), (y, nothing), along_rows, dim=3)
    down_columns, coverage = _tap_weights(window, row_coverage, dim=2)
    mean_x, mean_y, *between = _window_moments(row_x, row_y, down_columns, dim=2)
    variance_x, variance_y, covariance = (
        _weighted_sum(inner, down_columns, dim=2) + outer for inner, outer in zip(within, between, strict=True)
    )
    return Statistics(mean_x[0] + mean_x[1], mean_y[0] + mean_y[1], variance_x, variance_y, covariance, coverage)


def additive_map(
    statistics: Statistics, weights: tuple[float, float, float], c1: float, c2: float, data_range: float
) -> Tensor:
    """alpha*l + beta*c + gamma*s at every window position (Eq. 7); ``c1``, ``c2`` of Eq. 3, Eq. 4."""
    c3 = c2 / 2  # Eq. 5
    noise = COMMON_NOISE_VARIANCE * data_range**2
    mu_x, mu_y, variance_x, variance_y, covariance, _ = statistics
    variance_x, variance_y, covariance = variance_x + noise, variance_y + noise, covariance + noise
    # Not the root of the product, which leaves float32's range where data_range is small or large.
    sigma_x_sigma_y = torch.sqrt(variance_x) * torch.sqrt(variance_y)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)  # Eq. 2
    contrast = (2 * sigma_x_sigma_y + c2) / (variance_x + variance_y + c2)  # Eq. 4
    structure = (covariance + c3) / (sigma_x_sigma_y + c3)  # Eq. 5
    alpha, beta, gamma = weights
    return alpha * luminance + beta * contrast + gamma * structure


def product_map(statistics: Statistics, c1: float, c2: float, *, luminance: bool = True) -> Tensor:
    """Classic SSIM at every window position: Eq. 6 with all exponents 1, where C3 = C2/2 cancels the roots.

    Without ``luminance``, contrast * structure alone.
    """
    mu_x, mu_y, variance_x, variance_y, covariance, _ = statistics
    contrast_structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    if not luminance:
        return contrast_structure
    return (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1) * contrast_structure
