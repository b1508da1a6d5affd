"""AW-SSIM (Shiferaw & Yao 2024, Eq. 2-8) and classic SSIM, pixel by pixel."""

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


def _window_moments(x: _Split, y: _Split, window: Tensor, dim: int) -> tuple[_Split, _Split, Tensor, Tensor, Tensor]:
    """Weighted means, variances and covariance over a sliding window along one dimension.

    Deviations are taken from the window's centre pixel first and from its mean then, so that neither a large offset
    nor a ramp costs digits.
    """
    taps = window.shape[1]
    length = x[0].shape[dim] - taps + 1
    weights = [window[:, tap].view(-1, 1, 1, 1) for tap in range(taps)]

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


def _weighted_sum(image: Tensor, window: Tensor, dim: int) -> Tensor:
    length = image.shape[dim] - window.shape[1] + 1
    total = window[:, 0].view(-1, 1, 1, 1) * image.narrow(dim, 0, length)
    for tap in range(1, window.shape[1]):
        total = total + window[:, tap].view(-1, 1, 1, 1) * image.narrow(dim, tap, length)
    return total


def local_moments(
    x: Tensor, y: Tensor, sigma: Tensor, window_size: int, padding: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """mu_x, mu_y, sigma_x^2, sigma_y^2 and sigma_xy under a separable Gaussian window.

    Within-row and between-row parts are added (the law of total variance), so every variance is a sum of squares
    and never negative.
    """
    window = gaussian_window(window_size, sigma)
    if padding == "same":
        half = window_size // 2
        x, y = F.pad(x, (half,) * 4), F.pad(y, (half,) * 4)
    nothing = torch.zeros_like(x)
    row_x, row_y, *within = _window_moments((x, nothing), (y, nothing), window, dim=3)
    mean_x, mean_y, *between = _window_moments(row_x, row_y, window, dim=2)
    variance_x, variance_y, covariance = (
        _weighted_sum(inner, window, dim=2) + outer for inner, outer in zip(within, between, strict=True)
    )
    return mean_x[0] + mean_x[1], mean_y[0] + mean_y[1], variance_x, variance_y, covariance


def aw_ssim_map(
    x: Tensor,
    y: Tensor,
    sigma: Tensor,
    weights: tuple[float, float, float],
    window_size: int,
    data_range: float,
    k1: float,
    k2: float,
    padding: str,
) -> Tensor:
    """alpha*l + beta*c + gamma*s at every window position (Eq. 7). ``sigma`` is [B]."""
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2  # Eq. 3, Eq. 4
    c3 = c2 / 2  # Eq. 5
    noise = COMMON_NOISE_VARIANCE * data_range**2
    mu_x, mu_y, variance_x, variance_y, covariance = local_moments(x, y, sigma, window_size, padding)
    variance_x, variance_y, covariance = variance_x + noise, variance_y + noise, covariance + noise
    # Not the root of the product, which leaves float32's range where data_range is small or large.
    sigma_x_sigma_y = torch.sqrt(variance_x) * torch.sqrt(variance_y)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)  # Eq. 2
    contrast = (2 * sigma_x_sigma_y + c2) / (variance_x + variance_y + c2)  # Eq. 4
    structure = (covariance + c3) / (sigma_x_sigma_y + c3)  # Eq. 5
    alpha, beta, gamma = weights
    return alpha * luminance + beta * contrast + gamma * structure


def ssim_map(
    x: Tensor,
    y: Tensor,
    sigma: Tensor,
    window_size: int,
    data_range: float,
    k1: float,
    k2: float,
    padding: str,
) -> Tensor:
    """Classic SSIM at every window position: Eq. 6 with all exponents 1, where C3 = C2/2 cancels the roots."""
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    mu_x, mu_y, variance_x, variance_y, covariance = local_moments(x, y, sigma, window_size, padding)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
    contrast_structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * contrast_structure
