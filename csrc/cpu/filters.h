// The four passes of the separable Gaussian: moments along rows and down columns, and both ways back.
//
// u counts columns: a window at u covers u - half .. u + half and, going back, a pixel at u is covered by the windows
// u - half .. u + half. kTaps is the window's size, or 0 where it is known at run
// time only.
#pragma once

#include "pixel_score.h"
#include "simd.h"

namespace twostage {
namespace {

// Rows of images, `stride` apart; the last only with a mask.
enum ImageField { kX, kY, kMask };
// Pixels and their row's moments about them. These are records: the fields of one vector lie together, those of the
// next vector follow. Down a column that makes one stream of memory for
// a row instead of one for every field, and streams are what a processor can fetch ahead only so many of.
// The variance of y is in it in the additive form alone, and how much of the window a mask shows comes last.
enum MomentField { kOwnX, kOwnY, kMeanX, kMeanY, kCovariance, kVarianceA, kVarianceY };
// Derivatives, the last two only where both gradients are wanted: as rows, `stride` apart, and summed along the row as
// records, in which the pixel's x and y come after them.
enum DerivativeField { kOffsetX, kSlopeX, kCross, kOffsetY, kSlopeY };

template <bool kAdditive>
constexpr int kMomentFields = kAdditive ? 7 : 6;
template <bool kAdditive>
constexpr int kCoverage = kMomentFields<kAdditive>;
template <bool kAdditive, bool kMasked>
constexpr int kRecordedMoments = kMomentFields<kAdditive> + (kMasked ? 1 : 0);
template <bool kBoth>
constexpr int kDerivatives = kBoth ? 5 : 3;
template <bool kBoth>
constexpr int kSummedFields = kDerivatives<kBoth> + 2;

template <typename T>
TWOSTAGE_INLINE Vector<T> field_of(const T* record, int field) {
    return load(record + field * kLanes<T>);
}
template <typename T>
TWOSTAGE_INLINE void set_field(T* record, int field, Vector<T> value) {
    store(record + field * kLanes<T>, value);
}

// Means and variances along the row, about the mean of the window, for begin <= u < end. `x` and `y` are the pixels;
// those of the same u go into `row` too, which may be where they are.
template <typename T, int kTaps, bool kAdditive>
void row_moments(const T* x, const T* y, T* row, std::int64_t stride, const T* window, int taps, std::int64_t begin,
                 std::int64_t end, T* to) {
    const int half = (kTaps ? kTaps : taps) / 2;
    const T* weights = window + half;
    for (std::int64_t u = begin; u < end; u += kLanes<T>) {
        const Neighbourhood<T> near_x(x + u), near_y(y + u);
        const Vector<T> x0 = near_x[Constant<0>{}], y0 = near_y[Constant<0>{}];
        store(row + kX * stride + u, x0);
        store(row + kY * stride + u, y0);
        Vector<T> mean_x{}, mean_y{}, product{}, square_a{}, square_y{};
        repeat<kTaps / 2>(half, [&](auto index) TWOSTAGE_INLINE_LAMBDA {
            const auto right = one_more(index), left = opposite(right);
            const T weight = weights[right];
            // What is taken away may come straight from memory; so the signs are the other way round.
            const Vector<T> right_x = x0 - near_x[right], left_x = x0 - near_x[left];
            const Vector<T> right_y = y0 - near_y[right], left_y = y0 - near_y[left];
            const Vector<T> right_a = a_of<kAdditive, T>(right_x, right_y), left_a = a_of<kAdditive, T>(left_x, left_y);
            mean_x -= weight * (right_x + left_x);
            mean_y -= weight * (right_y + left_y);
            product += weight * (right_x * right_y + left_x * left_y);
            square_a += weight * (right_a * right_a + left_a * left_a);
            if constexpr (kAdditive) square_y += weight * (right_y * right_y + left_y * left_y);
        });
        const Vector<T> mean_a = a_of<kAdditive, T>(mean_x, mean_y);
        T* record = to + u * kMomentFields<kAdditive>;
        set_field(record, kOwnX, x0);
        set_field(record, kOwnY, y0);
        set_field(record, kMeanX, mean_x);
        set_field(record, kMeanY, mean_y);
        set_field<T>(record, kCovariance, product - mean_x * mean_y);
        set_field<T>(record, kVarianceA, square_a - mean_a * mean_a);
        if constexpr (kAdditive) set_field<T>(record, kVarianceY, square_y - mean_y * mean_y);
    }
}

// Below this sigma, in pixels, a neighbour two rows away hardly belongs to a window, and moments about it lose digits.
constexpr double kSmallSigma = 0.8;

// Sums down a column of what the rows' records hold, about a pixel (x0, y0).
template <typename T, bool kAdditive>
struct ColumnSums {
    Vector<T> mean_x, mean_y, product, square_a, square_y;

    // Calls add(sum, value) with a row's share of every sum before its weight. One value is added wherever it belongs
    // before the next is made: few are held at a time, and the sums keep their registers.
    template <typename Add>
    static TWOSTAGE_INLINE void of_row(const T* record, Vector<T> x0, Vector<T> y0, Add&& add) {
        const Vector<T> x = (field_of(record, kOwnX) - x0) + field_of(record, kMeanX);
        add(&ColumnSums::mean_x, x);
        const Vector<T> y = (field_of(record, kOwnY) - y0) + field_of(record, kMeanY);
        add(&ColumnSums::mean_y, y);
        add(&ColumnSums::product, field_of(record, kCovariance) + x * y);
        const Vector<T> a = a_of<kAdditive, T>(x, y);
        add(&ColumnSums::square_a, field_of(record, kVarianceA) + a * a);
        if constexpr (kAdditive) add(&ColumnSums::square_y, field_of(record, kVarianceY) + y * y);
    }

    TWOSTAGE_INLINE Moments<T> moments(Vector<T> x0, Vector<T> y0, Vector<T> centre_x, Vector<T> centre_y) const {
        const Vector<T> mean_a = a_of<kAdditive, T>(mean_x, mean_y);
        return {x0,
                y0,
                centre_x,
                centre_y,
                mean_x,
                mean_y,
                product - mean_x * mean_y,
                square_a - mean_a * mean_a,
                square_y - mean_y * mean_y};
    }
};

// Moments of kRowGroup windows below each other at column u, about the pixel of row `centre`. `rows` are the records of
// the kRowGroup + taps - 1 rows that they cover.
template <typename T, int kTaps, bool kAdditive>
TWOSTAGE_INLINE void column_moments(const T* const* rows, const T* centre, const T* window, int taps, std::int64_t u,
                                    Moments<T>* to) {
    const int count = kTaps ? kTaps : taps;
    const std::int64_t at = u * kMomentFields<kAdditive>;
    const Vector<T> x0 = field_of(centre + at, kOwnX), y0 = field_of(centre + at, kOwnY);
    using Sums = ColumnSums<T, kAdditive>;
    Sums sums[kRowGroup]{};
    repeat<kTaps ? kTaps + kRowGroup - 1 : 0>(count + kRowGroup - 1, [&](int row) TWOSTAGE_INLINE_LAMBDA {
        Sums::of_row(rows[row] + at, x0, y0, [&](Vector<T> Sums::* sum, Vector<T> value) TWOSTAGE_INLINE_LAMBDA {
            repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
                const int tap = row - output;
                if (tap >= 0 && tap < count) sums[output].*sum += window[tap] * value;
            });
        });
    });
    repeat<kRowGroup>([&](int output) TWOSTAGE_INLINE_LAMBDA {
        const T* own = rows[output + count / 2] + at;
        to[output] = sums[output].moments(x0, y0, field_of(own, kOwnX) - x0, field_of(own, kOwnY) - y0);
    });
}

// The same for small sigmas: each window's moments about its own centre.
template <typename T, int kTaps, bool kAdditive>
__attribute__((noinline)) void own_column_moments(const T* const* rows, const T* window, int taps, std::int64_t u,
                                                  Moments<T>* to) {
    const std::int64_t at = u * kMomentFields<kAdditive>;
    for (int output = 0; output < kRowGroup; ++output) {
        const T* const* own = rows + output;
        const T* centre = own[taps / 2] + at;
        const Vector<T> x0 = field_of(centre, kOwnX), y0 = field_of(centre, kOwnY);
        using Sums = ColumnSums<T, kAdditive>;
        Sums sums{};
        repeat<kTaps>(taps, [&](int tap) TWOSTAGE_INLINE_LAMBDA {
            Sums::of_row(own[tap] + at, x0, y0, [&](Vector<T> Sums::* sum, Vector<T> value) TWOSTAGE_INLINE_LAMBDA {
                sums.*sum += window[tap] * value;
            });
        });
        to[output] = sums.moments(x0, y0, Vector<T>{}, Vector<T>{});
    }
}

// Moments along the row of what the mask shows, and how much of the window that is. Means come first, so that a window
// that sees a single pixel has exactly no variance.
template <typename T, bool kAdditive>
void masked_row_moments(const T* row, std::int64_t stride, const T* window, int taps, std::int64_t count, T* to) {
    const std::int64_t half = taps / 2;
    const T *x = row + kX * stride, *y = row + kY * stride, *mask = row + kMask * stride;
    for (std::int64_t u = 0; u < count; u += kLanes<T>) {
        const Vector<T> x0 = load(x + u), y0 = load(y + u);
        Vector<T> coverage{}, mean_x{}, mean_y{}, covariance{}, variance_a{}, variance_y{};
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
            const Vector<T> deviation_a = a_of<kAdditive, T>(deviation_x, deviation_y);
            covariance += weight * deviation_x * deviation_y;
            variance_a += weight * deviation_a * deviation_a;
            if constexpr (kAdditive) variance_y += weight * deviation_y * deviation_y;
        }
        T* record = to + u * kRecordedMoments<kAdditive, true>;
        set_field(record, kOwnX, x0);
        set_field(record, kOwnY, y0);
        set_field(record, kMeanX, mean_x);
        set_field(record, kMeanY, mean_y);
        set_field(record, kCovariance, covariance);
        set_field(record, kVarianceA, variance_a);
        if constexpr (kAdditive) set_field(record, kVarianceY, variance_y);
        set_field(record, kCoverage<kAdditive>, coverage);
    }
}

// The same down the column at u for one window, whose rows are `rows`. Returns its coverage, 0 where it is too small.
template <typename T, bool kAdditive>
Vector<T> masked_column_moments(const T* const* rows, const T* window, int taps, std::int64_t u, Moments<T>& to) {
    const std::int64_t at = u * kRecordedMoments<kAdditive, true>;
    const T* centre = rows[taps / 2] + at;
    to = Moments<T>{field_of(centre, kOwnX), field_of(centre, kOwnY), {}, {}, {}, {}, {}, {}, {}};
    const auto x_of = [&](const T* record) { return (field_of(record, kOwnX) - to.x0) + field_of(record, kMeanX); };
    const auto y_of = [&](const T* record) { return (field_of(record, kOwnY) - to.y0) + field_of(record, kMeanY); };
    Vector<T> coverage{};
    for (int tap = 0; tap < taps; ++tap) {
        const T* record = rows[tap] + at;
        const Vector<T> weight = window[tap] * field_of(record, kCoverage<kAdditive>);
        coverage += weight;
        to.mean_x += weight * x_of(record);
        to.mean_y += weight * y_of(record);
    }
    const Vector<T> scale = inverse_or_zero<T>(coverage);
    to.mean_x *= scale;
    to.mean_y *= scale;
    for (int tap = 0; tap < taps; ++tap) {
        const T* record = rows[tap] + at;
        const Vector<T> weight = window[tap] * field_of(record, kCoverage<kAdditive>) * scale;
        const Vector<T> deviation_x = x_of(record) - to.mean_x, deviation_y = y_of(record) - to.mean_y;
        const Vector<T> deviation_a = a_of<kAdditive, T>(deviation_x, deviation_y);
        to.covariance += weight * (field_of(record, kCovariance) + deviation_x * deviation_y);
        to.variance_a += weight * (field_of(record, kVarianceA) + deviation_a * deviation_a);
        if constexpr (kAdditive) to.variance_y += weight * (field_of(record, kVarianceY) + deviation_y * deviation_y);
    }
    return coverage >= Vector<T>{} + static_cast<T>(kLeastCoverage) ? coverage : Vector<T>{};
}

// Back along a row: each pixel begin <= u < end sums the derivatives of the windows that cover it in this row, with
// offsets about itself. `to` are records, from `begin` on.
template <typename T, int kTaps, bool kBoth>
void row_derivatives(const T* derivatives, const T* images, std::int64_t stride, const T* window, int taps,
                     std::int64_t begin, std::int64_t end, T* to) {
    constexpr int kFields = kDerivatives<kBoth>;
    const int half = (kTaps ? kTaps : taps) / 2;
    const T* weights = window + half;
    for (std::int64_t u = begin; u < end; u += kLanes<T>) {
        const Neighbourhood<T> x(images + kX * stride + u), y(images + kY * stride + u);
        const Neighbourhood<T> slopes_x(derivatives + kSlopeX * stride + u), crosses(derivatives + kCross * stride + u);
        const T* at = derivatives + u;
        const Vector<T> x0 = x[Constant<0>{}], y0 = y[Constant<0>{}];
        // Of the windows `shift` columns away. An offset and what its slopes add cancel: they meet before anything
        // else is added.
        const auto derivatives_at = [&](auto shift) TWOSTAGE_INLINE_LAMBDA {
            const Vector<T> shift_x = x0 - x[shift], shift_y = y0 - y[shift];
            Derivatives<T> own{};
            own.slope_x = fetched<T>(slopes_x[shift]);
            own.cross = fetched<T>(crosses[shift]);
            own.offset_x = load(at + kOffsetX * stride + shift) + own.slope_x * shift_x + own.cross * shift_y;
            if constexpr (kBoth) {
                own.slope_y = load(at + kSlopeY * stride + shift);
                own.offset_y = load(at + kOffsetY * stride + shift) + own.slope_y * shift_y + own.cross * shift_x;
            }
            return own;
        };
        Vector<T> sums[kFields];
        repeat<kFields>([&](int field)
                            TWOSTAGE_INLINE_LAMBDA { sums[field] = weights[0] * load(at + field * stride); });
        repeat<kTaps / 2>(half, [&](auto index) TWOSTAGE_INLINE_LAMBDA {
            const auto beside = one_more(index);
            const T weight = weights[beside];
            const Derivatives<T> left = derivatives_at(opposite(beside)), right = derivatives_at(beside);
            sums[kOffsetX] += weight * (left.offset_x + right.offset_x);
            sums[kSlopeX] += weight * (left.slope_x + right.slope_x);
            sums[kCross] += weight * (left.cross + right.cross);
            if constexpr (kBoth) {
                sums[kOffsetY] += weight * (left.offset_y + right.offset_y);
                sums[kSlopeY] += weight * (left.slope_y + right.slope_y);
            }
        });
        T* record = to + (u - begin) * kSummedFields<kBoth>;
        repeat<kFields>([&](int field) TWOSTAGE_INLINE_LAMBDA { set_field(record, field, sums[field]); });
        set_field(record, kFields, x0);
        set_field(record, kFields + 1, y0);
    }
}

// Back down the columns: gradients of kGradientRows rows of pixels, whose images' rows are `pixels`. `rows` are the
// records of the kGradientRows + taps - 1 rows that reach them; `count` pixels of each are written.
template <typename T, int kTaps, bool kBoth>
void column_gradients(const T* const* rows, const T* const* pixels, std::int64_t image_stride, const T* window,
                      int taps, std::int64_t count, T* const* gradient_x, T* const* gradient_y) {
    constexpr int kFields = kDerivatives<kBoth>, kRows = kGradientRows<kBoth>;
    const int window_size = kTaps ? kTaps : taps;
    for (std::int64_t u = 0; u < count; u += kLanes<T>) {
        Vector<T> x[kRows], y[kRows], sum_x[kRows]{}, sum_y[kRows]{};
        repeat<kRows>([&](int output) TWOSTAGE_INLINE_LAMBDA {
            x[output] = load(pixels[output] + kX * image_stride + u);
            y[output] = load(pixels[output] + kY * image_stride + u);
        });
        repeat<kTaps ? kTaps + kRows - 1 : 0>(window_size + kRows - 1, [&](int row) TWOSTAGE_INLINE_LAMBDA {
            const T* record = rows[row] + u * kSummedFields<kBoth>;
            const Vector<T> x0 = fetched<T>(field_of(record, kFields)), y0 = fetched<T>(field_of(record, kFields + 1));
            const Vector<T> offset_x = fetched<T>(field_of(record, kOffsetX)),
                            slope_x = fetched<T>(field_of(record, kSlopeX));
            const Vector<T> cross = fetched<T>(field_of(record, kCross));
            Vector<T> offset_y{}, slope_y{};
            if constexpr (kBoth) {
                offset_y = field_of(record, kOffsetY);
                slope_y = field_of(record, kSlopeY);
            }
            repeat<kRows>([&](int output) TWOSTAGE_INLINE_LAMBDA {
                const int tap = output + window_size - 1 - row;
                if (tap < 0 || tap >= window_size) return;
                const Vector<T> shift_x = x[output] - x0, shift_y = y[output] - y0;
                sum_x[output] += window[tap] * (offset_x + slope_x * shift_x + cross * shift_y);
                if constexpr (kBoth) sum_y[output] += window[tap] * (offset_y + slope_y * shift_y + cross * shift_x);
            });
        });
        repeat<kRows>([&](int output) TWOSTAGE_INLINE_LAMBDA {
            store_some<T>(gradient_x[output] + u, sum_x[output], count - u);
            if constexpr (kBoth) store_some<T>(gradient_y[output] + u, sum_y[output], count - u);
        });
    }
}

}  // namespace
}  // namespace twostage
