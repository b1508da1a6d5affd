// The four passes of the separable Gaussian: moments along rows and down columns, and both ways back.
//
// Columns count from the centre of the first window, so a window at u covers u - half .. u + half and, going back, a
// pixel at u is covered by the windows u - half .. u + half. kTaps is the window's size, or 0 where it is known at run
// time only.
#pragma once

#include "pixel_score.h"
#include "simd.h"

namespace twostage {
namespace {

// One row of the ring: images, then the moments along the row about the pixel itself; the last two only with a mask.
// Fields lie `stride` apart.
enum RowField {
    kX,
    kY,
    kMeanX,
    kMeanY,
    kVarianceX,
    kVarianceY,
    kCovariance,
    kRowFields,
    kMask = kRowFields,
    kCoverage,
    kMaskedRowFields
};
// One row of derivatives; the last two only where both gradients are wanted.
enum DerivativeField { kOffsetX, kSlopeX, kCross, kOffsetY, kSlopeY, kDerivativeFields };

// Means and variances along the row, about the mean of the window.
template <typename T, int kTaps>
void row_moments(T* row, std::int64_t stride, const T* window, int taps, std::int64_t count) {
    const int half = (kTaps ? kTaps : taps) / 2;
    const T* weights = window + half;
    const T *x = row + kX * stride, *y = row + kY * stride;
    for (std::int64_t u = 0; u < count; u += kLanes<T>) {
        const Neighbourhood<T> near_x(x + u), near_y(y + u);
        const Vector<T> x0 = near_x[Constant<0>{}], y0 = near_y[Constant<0>{}];
        Vector<T> mean_x{}, mean_y{}, square_x{}, square_y{}, product{};
        repeat<kTaps / 2>(half, [&](auto index) TWOSTAGE_INLINE_LAMBDA {
            const auto right = one_more(index), left = opposite(right);
            const T weight = weights[right];
            const Vector<T> right_x = near_x[right] - x0, left_x = near_x[left] - x0;
            const Vector<T> right_y = near_y[right] - y0, left_y = near_y[left] - y0;
            mean_x += weight * (right_x + left_x);
            mean_y += weight * (right_y + left_y);
            square_x += weight * (right_x * right_x + left_x * left_x);
            square_y += weight * (right_y * right_y + left_y * left_y);
            product += weight * (right_x * right_y + left_x * left_y);
        });
        store(row + kMeanX * stride + u, mean_x);
        store(row + kMeanY * stride + u, mean_y);
        store(row + kVarianceX * stride + u, square_x - mean_x * mean_x);
        store(row + kVarianceY * stride + u, square_y - mean_y * mean_y);
        store(row + kCovariance * stride + u, product - mean_x * mean_y);
    }
}

// Below this sigma, in pixels, a neighbour two rows away hardly belongs to a window, and moments about it lose digits.
constexpr double kSmallSigma = 0.8;

// Moments of kRowGroup windows below each other at column u, about the pixel of row `centre`. `rows` are the
// kRowGroup + taps - 1 rows that they cover.
template <typename T, int kTaps>
TWOSTAGE_INLINE void column_moments(const T* const* rows, const T* centre, std::int64_t stride, const T* window,
                                    int taps, std::int64_t u, Moments<T>* to) {
    const int count = kTaps ? kTaps : taps;
    const Vector<T> x0 = load(centre + kX * stride + u), y0 = load(centre + kY * stride + u);
    Vector<T> mean_x[kRowGroup]{}, mean_y[kRowGroup]{}, square_x[kRowGroup]{}, square_y[kRowGroup]{};
    Vector<T> product[kRowGroup]{};
    repeat<kTaps ? kTaps + kRowGroup - 1 : 0>(count + kRowGroup - 1, [&](int row) TWOSTAGE_INLINE_LAMBDA {
        const T* fields = rows[row] + u;
        const Vector<T> x = (load(fields + kX * stride) - x0) + load(fields + kMeanX * stride);
        const Vector<T> y = (load(fields + kY * stride) - y0) + load(fields + kMeanY * stride);
        const Vector<T> xx = load(fields + kVarianceX * stride) + x * x;
        const Vector<T> yy = load(fields + kVarianceY * stride) + y * y;
        const Vector<T> xy = load(fields + kCovariance * stride) + x * y;
        repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
            const int tap = row - output;
            if (tap < 0 || tap >= count) return;
            const T weight = window[tap];
            mean_x[output] += weight * x;
            mean_y[output] += weight * y;
            square_x[output] += weight * xx;
            square_y[output] += weight * yy;
            product[output] += weight * xy;
        });
    });
    repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
        const T* own = rows[output + count / 2] + u;
        to[output] = {x0,
                      y0,
                      load(own + kX * stride) - x0,
                      load(own + kY * stride) - y0,
                      mean_x[output],
                      mean_y[output],
                      square_x[output] - mean_x[output] * mean_x[output],
                      square_y[output] - mean_y[output] * mean_y[output],
                      product[output] - mean_x[output] * mean_y[output]};
    });
}

// The same for small sigmas: each window's moments about its own centre.
template <typename T, int kTaps>
__attribute__((noinline)) void own_column_moments(const T* const* rows, std::int64_t stride, const T* window, int taps,
                                                  std::int64_t u, Moments<T>* to) {
    for (int output = 0; output < kRowGroup; ++output) {
        const T* const* own = rows + output;
        const T* centre = own[taps / 2] + u;
        const Vector<T> x0 = load(centre + kX * stride), y0 = load(centre + kY * stride);
        Vector<T> mean_x{}, mean_y{}, square_x{}, square_y{}, product{};
        repeat<kTaps>(taps, [&](int tap) TWOSTAGE_INLINE_LAMBDA {
            const T* fields = own[tap] + u;
            const T weight = window[tap];
            const Vector<T> x = (load(fields + kX * stride) - x0) + load(fields + kMeanX * stride);
            const Vector<T> y = (load(fields + kY * stride) - y0) + load(fields + kMeanY * stride);
            mean_x += weight * x;
            mean_y += weight * y;
            square_x += weight * (load(fields + kVarianceX * stride) + x * x);
            square_y += weight * (load(fields + kVarianceY * stride) + y * y);
            product += weight * (load(fields + kCovariance * stride) + x * y);
        });
        to[output] = Moments<T>{x0,
                                y0,
                                {},
                                {},
                                mean_x,
                                mean_y,
                                square_x - mean_x * mean_x,
                                square_y - mean_y * mean_y,
                                product - mean_x * mean_y};
    }
}

// Moments along the row of what the mask shows, and how much of the window that is. Means come first, so that a window
// that sees a single pixel has exactly no variance.
template <typename T>
void masked_row_moments(T* row, std::int64_t stride, const T* window, int taps, std::int64_t count) {
    const std::int64_t half = taps / 2;
    const T *x = row + kX * stride, *y = row + kY * stride, *mask = row + kMask * stride;
    for (std::int64_t u = 0; u < count; u += kLanes<T>) {
        const Vector<T> x0 = load(x + u), y0 = load(y + u);
        Vector<T> coverage{}, mean_x{}, mean_y{}, variance_x{}, variance_y{}, covariance{};
        for (std::int64_t tap = 0; tap < taps; ++tap) {
            const std::int64_t at = u + tap - half;
            const Vector<T> weight = window[tap] * load(mask + at);
            coverage += weight;
            mean_x += weight * (load(x + at) - x0);
            mean_y += weight * (load(y + at) - y0);
        }
        const Vector<T> scale = inverse_or_zero<T>(coverage);
        mean_x *= scale;
        mean_y *= scale;
        for (std::int64_t tap = 0; tap < taps; ++tap) {
            const std::int64_t at = u + tap - half;
            const Vector<T> weight = window[tap] * load(mask + at) * scale;
            const Vector<T> deviation_x = (load(x + at) - x0) - mean_x, deviation_y = (load(y + at) - y0) - mean_y;
            variance_x += weight * deviation_x * deviation_x;
            variance_y += weight * deviation_y * deviation_y;
            covariance += weight * deviation_x * deviation_y;
        }
        store(row + kCoverage * stride + u, coverage);
        store(row + kMeanX * stride + u, mean_x);
        store(row + kMeanY * stride + u, mean_y);
        store(row + kVarianceX * stride + u, variance_x);
        store(row + kVarianceY * stride + u, variance_y);
        store(row + kCovariance * stride + u, covariance);
    }
}

// The same down the column at u for one window, whose rows are `rows`. Returns its coverage, 0 where it is too small.
template <typename T>
Vector<T> masked_column_moments(const T* const* rows, std::int64_t stride, const T* window, int taps, std::int64_t u,
                                Moments<T>& to) {
    const T* centre = rows[taps / 2] + u;
    to = Moments<T>{load(centre + kX * stride), load(centre + kY * stride), {}, {}, {}, {}, {}, {}, {}};
    const auto x_of = [&](const T* fields) {
        return (load(fields + kX * stride) - to.x0) + load(fields + kMeanX * stride);
    };
    const auto y_of = [&](const T* fields) {
        return (load(fields + kY * stride) - to.y0) + load(fields + kMeanY * stride);
    };
    Vector<T> coverage{};
    for (int tap = 0; tap < taps; ++tap) {
        const T* fields = rows[tap] + u;
        const Vector<T> weight = window[tap] * load(fields + kCoverage * stride);
        coverage += weight;
        to.mean_x += weight * x_of(fields);
        to.mean_y += weight * y_of(fields);
    }
    const Vector<T> scale = inverse_or_zero<T>(coverage);
    to.mean_x *= scale;
    to.mean_y *= scale;
    for (int tap = 0; tap < taps; ++tap) {
        const T* fields = rows[tap] + u;
        const Vector<T> weight = window[tap] * load(fields + kCoverage * stride) * scale;
        const Vector<T> deviation_x = x_of(fields) - to.mean_x, deviation_y = y_of(fields) - to.mean_y;
        to.variance_x += weight * (load(fields + kVarianceX * stride) + deviation_x * deviation_x);
        to.variance_y += weight * (load(fields + kVarianceY * stride) + deviation_y * deviation_y);
        to.covariance += weight * (load(fields + kCovariance * stride) + deviation_x * deviation_y);
    }
    return coverage >= Vector<T>{} + static_cast<T>(kLeastCoverage) ? coverage : Vector<T>{};
}

// Back along a row: each pixel begin <= u < end sums the derivatives of the windows that cover it in this row, with
// offsets about itself. `to` starts at `begin`; its fields lie `to_stride` apart.
template <typename T, int kTaps, bool kBoth>
void row_derivatives(const T* derivatives, const T* images, std::int64_t stride, const T* window, int taps,
                     std::int64_t begin, std::int64_t end, T* to, std::int64_t to_stride) {
    constexpr int kFields = kBoth ? 5 : 3;
    const int half = (kTaps ? kTaps : taps) / 2;
    const T* weights = window + half;
    for (std::int64_t u = begin; u < end; u += kLanes<T>) {
        const Neighbourhood<T> x(images + kX * stride + u), y(images + kY * stride + u);
        const Neighbourhood<T> slopes_x(derivatives + kSlopeX * stride + u), crosses(derivatives + kCross * stride + u);
        const T* at = derivatives + u;
        const Vector<T> x0 = x[Constant<0>{}], y0 = y[Constant<0>{}];
        Vector<T> sums[kFields];
        repeat<kFields>([&](int field)
                            TWOSTAGE_INLINE_LAMBDA { sums[field] = weights[0] * load(at + field * stride); });
        repeat<kTaps / 2>(half, [&](auto index) TWOSTAGE_INLINE_LAMBDA {
            const auto right = one_more(index), left = opposite(right);
            const T weight = weights[right];
            Vector<T> offset_x{}, slope_x{}, cross{}, offset_y{}, slope_y{};
            // An offset and what its slopes add cancel: they meet before anything else is added.
            const auto add = [&](auto shift) TWOSTAGE_INLINE_LAMBDA {
                const Vector<T> shift_x = x0 - x[shift], shift_y = y0 - y[shift];
                const Vector<T> own_slope = slopes_x[shift], own_cross = crosses[shift];
                offset_x += load(at + kOffsetX * stride + shift) + own_slope * shift_x + own_cross * shift_y;
                slope_x += own_slope;
                cross += own_cross;
                if constexpr (kBoth) {
                    const Vector<T> other_slope = load(at + kSlopeY * stride + shift);
                    offset_y += load(at + kOffsetY * stride + shift) + other_slope * shift_y + own_cross * shift_x;
                    slope_y += other_slope;
                }
            };
            add(left);
            add(right);
            sums[kOffsetX] += weight * offset_x;
            sums[kSlopeX] += weight * slope_x;
            sums[kCross] += weight * cross;
            if constexpr (kBoth) {
                sums[kOffsetY] += weight * offset_y;
                sums[kSlopeY] += weight * slope_y;
            }
        });
        repeat<kFields>([&](int field)
                            TWOSTAGE_INLINE_LAMBDA { store(to + field * to_stride + (u - begin), sums[field]); });
    }
}

// A row of derivatives summed along the row, and the images' row that they belong to.
template <typename T>
struct DerivativeRow {
    const T* fields;
    const T* images;
};

// Back down the columns: gradients of kRowGroup rows of pixels, whose images' rows are `pixels`. `rows` are the
// kRowGroup + taps - 1 rows that reach them; `count` pixels of each are written.
template <typename T, int kTaps, bool kBoth>
void column_gradients(const DerivativeRow<T>* rows, std::int64_t stride, const T* const* pixels,
                      std::int64_t image_stride, const T* window, int taps, std::int64_t count, T* const* gradient_x,
                      T* const* gradient_y) {
    const int window_size = kTaps ? kTaps : taps;
    for (std::int64_t u = 0; u < count; u += kLanes<T>) {
        Vector<T> x[kRowGroup], y[kRowGroup], sum_x[kRowGroup]{}, sum_y[kRowGroup]{};
        repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
            x[output] = load(pixels[output] + kX * image_stride + u);
            y[output] = load(pixels[output] + kY * image_stride + u);
        });
        repeat<kTaps ? kTaps + kRowGroup - 1 : 0>(window_size + kRowGroup - 1, [&](int row) TWOSTAGE_INLINE_LAMBDA {
            const T *at = rows[row].fields + u, *images = rows[row].images + u;
            const Vector<T> x0 = load(images + kX * image_stride), y0 = load(images + kY * image_stride);
            const Vector<T> offset_x = load(at + kOffsetX * stride), slope_x = load(at + kSlopeX * stride);
            const Vector<T> cross = load(at + kCross * stride);
            Vector<T> offset_y{}, slope_y{};
            if constexpr (kBoth) {
                offset_y = load(at + kOffsetY * stride);
                slope_y = load(at + kSlopeY * stride);
            }
            repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
                const int tap = output + window_size - 1 - row;
                if (tap < 0 || tap >= window_size) return;
                const Vector<T> shift_x = x[output] - x0, shift_y = y[output] - y0;
                sum_x[output] += window[tap] * (offset_x + slope_x * shift_x + cross * shift_y);
                if constexpr (kBoth) sum_y[output] += window[tap] * (offset_y + slope_y * shift_y + cross * shift_x);
            });
        });
        repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
            store_some<T>(gradient_x[output] + u, sum_x[output], count - u);
            if constexpr (kBoth) store_some<T>(gradient_y[output] + u, sum_y[output], count - u);
        });
    }
}

}  // namespace
}  // namespace twostage
