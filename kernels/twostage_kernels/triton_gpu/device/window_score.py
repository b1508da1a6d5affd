"""The score of one window and its derivatives by the window's moments.

The score's derivative by a pixel (x, y) of the window, divided by the pixel's weight, is
    by x:  by_mean_x + slope_x * (x - mu_x) + cross * (y - mu_y)
    by y:  by_mean_y + slope_y * (y - mu_y) + cross * (x - mu_x)
A flat window has a huge slope, but its pixels lie close to the means: nothing large cancels.
"""

import triton
import triton.language as tl


@triton.jit
def at_least_zero(value):
    """A NaN stays one."""
    return tl.where(value < 0, 0.0, value)


@triton.jit
def root_and_inverse(value):
    """The square root and its reciprocal, both within 1 or 2 units in the last place on every device."""
    if value.dtype == tl.float64:
        root = tl.sqrt(value)
        inverse = 1.0 / root
    else:
        # One Newton step after the hardware's guess.
        guess = tl.rsqrt(value)
        half = 0.5 * guess
        approximate = value * guess
        error = 0.5 - approximate * half
        root = approximate + approximate * error
        inverse = guess + guess * error
    return root, inverse


@triton.jit
def luminance_deficit(mu_x, mu_y, mu_difference, c1):
    """How far l stays below 1, and what its derivatives by the means have in common."""
    ratio = mu_difference / (mu_x * mu_x + mu_y * mu_y + c1)
    return mu_difference * ratio, ratio


@triton.jit
def additive_deficit(mu_x, mu_y, mu_difference, variance_x, variance_y, covariance, alpha, beta, gamma, c1, c2, noise):
    """How far alpha * l + beta * c + gamma * s stays below alpha + beta + gamma, and the score's derivatives.

    Each part is a difference taken before it is squared or divided, so that equal images give exactly 0.
    """
    variance_x = at_least_zero(variance_x) + noise
    variance_y = at_least_zero(variance_y) + noise
    covariance += noise
    of_luminance, luminance_ratio = luminance_deficit(mu_x, mu_y, mu_difference, c1)

    sigma_x, inverse_x = root_and_inverse(variance_x)
    sigma_y, inverse_y = root_and_inverse(variance_y)
    sigma_difference = sigma_x - sigma_y
    contrast_factor = 1.0 / (variance_x + variance_y + c2)
    of_contrast = sigma_difference * sigma_difference * contrast_factor

    sigma_product = sigma_x * sigma_y
    structure_factor = 1.0 / (sigma_product + 0.5 * c2)
    of_structure = at_least_zero((sigma_product - covariance) * structure_factor)

    excess_y = -sigma_difference * inverse_x  # sigma_y / sigma_x - 1
    excess_x = sigma_difference * inverse_y  # sigma_x / sigma_y - 1
    contrast_scale = 2.0 * beta * contrast_factor
    luminance_scale = 2.0 * alpha * luminance_ratio
    cross = gamma * structure_factor
    structure_scale = cross * (1.0 - of_structure)
    slope_x = contrast_scale * (excess_y + of_contrast) - (structure_scale + structure_scale * excess_y)
    slope_y = contrast_scale * (excess_x + of_contrast) - (structure_scale + structure_scale * excess_x)
    by_mean_x = luminance_scale * (mu_x * luminance_ratio - 1.0)
    by_mean_y = luminance_scale * (mu_y * luminance_ratio + 1.0)
    deficit = alpha * of_luminance + beta * of_contrast + gamma * of_structure
    return deficit, by_mean_x, slope_x, cross, by_mean_y, slope_y


@triton.jit
def product_deficit(mu_x, mu_y, mu_difference, variance_difference, covariance, c1, c2, WITH_LUMINANCE: tl.constexpr):
    """How far l * c * s, or c * s, stays below 1, and the score's derivatives."""
    variance_difference = at_least_zero(variance_difference)
    variances = at_least_zero(2.0 * covariance + variance_difference)
    factor = 1.0 / (variances + c2)
    of_structure = variance_difference * factor
    if WITH_LUMINANCE:
        of_luminance, luminance_ratio = luminance_deficit(mu_x, mu_y, mu_difference, c1)
        luminance = 1.0 - of_luminance
        luminance_scale = 2.0 * luminance_ratio * (1.0 - of_structure)
        by_mean_x = luminance_scale * (mu_x * luminance_ratio - 1.0)
        by_mean_y = luminance_scale * (mu_y * luminance_ratio + 1.0)
        cross = 2.0 * luminance * factor
        deficit = of_luminance + luminance * of_structure
    else:
        by_mean_x = tl.zeros_like(mu_x)
        by_mean_y = by_mean_x
        cross = 2.0 * factor
        deficit = of_structure
    slope = cross * (of_structure - 1.0)
    return deficit, by_mean_x, slope, cross, by_mean_y, slope


@triton.jit
def window_score(shift_x, shift_y, mean_x, mean_y, seconds, constants, FORM: tl.constexpr):
    """How far a window stays below the highest score, and its derivatives about the means (mean_x, mean_y).

    These are taken about the shift. ``seconds``: variances and covariance in the additive form; variance of the
    difference and covariance else. ``constants``: alpha, beta, gamma, c1, c2, variance of the noise.
    """
    alpha, beta, gamma, c1, c2, noise = constants
    mu_x = shift_x + mean_x
    mu_y = shift_y + mean_y
    mu_difference = (shift_x - shift_y) + (mean_x - mean_y)
    if FORM == "additive":
        variance_x, variance_y, covariance = seconds
        deficit, offset_x, slope_x, cross, offset_y, slope_y = additive_deficit(
            mu_x, mu_y, mu_difference, variance_x, variance_y, covariance, alpha, beta, gamma, c1, c2, noise
        )
    else:
        variance_difference, covariance = seconds
        deficit, offset_x, slope_x, cross, offset_y, slope_y = product_deficit(
            mu_x, mu_y, mu_difference, variance_difference, covariance, c1, c2, FORM == "product"
        )
    return deficit, (offset_x, slope_x, cross, offset_y, slope_y)
