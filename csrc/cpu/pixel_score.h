// The score of one window and its derivatives by the window's moments.
#pragma once

#include "simd.h"
#include "tile.h"

namespace twostage {
namespace {

template <typename T>
struct Constants {
    Vector<T> alpha, beta, gamma, c1, c2, c3, noise;
    Vector<T> luminance, contrast, structure;  // what the derivatives of the three parts are multiplied by
    Vector<T> with_luminance;                  // of the product form: 1, or 0 where it is contrast * structure alone
};

// What variance_a is the variance of: x in the additive form. Of the two variances the product form asks no more than
// the sum, which the variance of the difference and the covariance tell.
template <bool kAdditive, typename T>
TWOSTAGE_INLINE Vector<T> a_of(Vector<T> x, Vector<T> y) {
    if constexpr (kAdditive)
        return x;
    else
        return x - y;
}

// Moments of one window about the pixel (x0, y0), which lies in it.
template <typename T>
struct Moments {
    Vector<T> x0, y0;
    Vector<T> centre_x, centre_y;                  // x - x0 and y - y0 of the window's centre
    Vector<T> mean_x, mean_y;                      // means of x - x0 and y - y0
    Vector<T> covariance, variance_a, variance_y;  // rounding may leave them below 0; the last of the additive form
};

// The score's derivative by a pixel (x, y) of the window, divided by the pixel's weight, is
//   by x:  offset_x + slope_x * (x - x0) + cross * (y - y0)
//   by y:  offset_y + slope_y * (y - y0) + cross * (x - x0)
// where (x0, y0) is the window's centre pixel. A flat window has a huge slope, but only small differences to its
// centre: nothing large cancels.
template <typename T>
struct Derivatives {
    Vector<T> offset_x, slope_x, cross, offset_y, slope_y;
};

// `by_mean`: derivatives by the means alone.
template <typename T>
TWOSTAGE_INLINE void set_offsets(const Moments<T>& m, Vector<T> by_mean_x, Vector<T> by_mean_y, Derivatives<T>& to) {
    const Vector<T> mean_x = m.mean_x - m.centre_x, mean_y = m.mean_y - m.centre_y;
    to.offset_x = by_mean_x - to.slope_x * mean_x - to.cross * mean_y;
    to.offset_y = by_mean_y - to.slope_y * mean_y - to.cross * mean_x;
}

// How far alpha * l + beta * c + gamma * s stays below alpha + beta + gamma. Each part is a difference taken before
// it is squared or divided, so that equal images give exactly 0.
template <typename T>
TWOSTAGE_INLINE Vector<T> additive_deficit(const Constants<T>& k, const Moments<T>& m, Derivatives<T>& to) {
    const Vector<T> variance_x = at_least_zero(m.variance_a) + k.noise;
    const Vector<T> variance_y = at_least_zero(m.variance_y) + k.noise;
    const Vector<T> covariance = m.covariance + k.noise;
    const Vector<T> mu_x = m.x0 + m.mean_x, mu_y = m.y0 + m.mean_y;
    const Vector<T> mu_difference = (m.x0 - m.y0) + (m.mean_x - m.mean_y);

    const Vector<T> luminance_ratio = mu_difference * reciprocal(mu_x * mu_x + mu_y * mu_y + k.c1);
    const Vector<T> luminance_deficit = mu_difference * luminance_ratio;

    const Root<T> sigma_x = square_root(variance_x), sigma_y = square_root(variance_y);
    const Vector<T> sigma_difference = sigma_x.root - sigma_y.root;
    const Vector<T> contrast_factor = reciprocal(variance_x + variance_y + k.c2);
    const Vector<T> contrast_deficit = sigma_difference * sigma_difference * contrast_factor;

    const Vector<T> sigma_product = sigma_x.root * sigma_y.root;
    const Vector<T> structure_factor = reciprocal(sigma_product + k.c3);
    const Vector<T> structure_deficit = at_least_zero((sigma_product - covariance) * structure_factor);

    const Vector<T> structure = 1 - structure_deficit;
    const Vector<T> excess_y = -sigma_difference * sigma_x.inverse;  // sigma_y / sigma_x - 1
    const Vector<T> excess_x = sigma_difference * sigma_y.inverse;   // sigma_x / sigma_y - 1
    const Vector<T> contrast_scale = k.contrast * contrast_factor;
    const Vector<T> luminance_scale = k.luminance * luminance_ratio;
    to.cross = k.structure * structure_factor;
    const Vector<T> structure_scale = to.cross * structure;
    to.slope_x = contrast_scale * (excess_y + contrast_deficit) - (structure_scale + structure_scale * excess_y);
    to.slope_y = contrast_scale * (excess_x + contrast_deficit) - (structure_scale + structure_scale * excess_x);
    set_offsets<T>(m, luminance_scale * (mu_x * luminance_ratio - 1), luminance_scale * (mu_y * luminance_ratio + 1),
                   to);
    return k.alpha * luminance_deficit + k.beta * contrast_deficit + k.gamma * structure_deficit;
}

// How far the product l * c * s, or c * s, stays below 1.
template <typename T>
TWOSTAGE_INLINE Vector<T> product_deficit(const Constants<T>& k, const Moments<T>& m, Derivatives<T>& to) {
    const Vector<T> mu_x = m.x0 + m.mean_x, mu_y = m.y0 + m.mean_y;
    const Vector<T> mu_difference = (m.x0 - m.y0) + (m.mean_x - m.mean_y);

    const Vector<T> luminance_ratio = k.with_luminance * mu_difference * reciprocal(mu_x * mu_x + mu_y * mu_y + k.c1);
    const Vector<T> luminance_deficit = mu_difference * luminance_ratio;
    const Vector<T> luminance = 1 - luminance_deficit;
    const Vector<T> variance_difference = at_least_zero(m.variance_a);
    const Vector<T> factor = reciprocal(at_least_zero(variance_difference + 2 * m.covariance) + k.c2);
    const Vector<T> structure_deficit = variance_difference * factor;

    const Vector<T> luminance_scale = k.luminance * luminance_ratio * (1 - structure_deficit);
    to.cross = k.structure * luminance * factor;
    to.slope_x = to.slope_y = to.cross * (structure_deficit - 1);
    set_offsets<T>(m, luminance_scale * (mu_x * luminance_ratio - 1), luminance_scale * (mu_y * luminance_ratio + 1),
                   to);
    return luminance_deficit + luminance * structure_deficit;
}

}  // namespace
}  // namespace twostage
