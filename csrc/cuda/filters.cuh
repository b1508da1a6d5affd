// The separable Gaussian in one thread: along a row over pixels in shared memory, down the columns in registers.
//
// A window has kTaps taps in each direction; a smaller one has weight 0 in its outer taps. A thread owns kColumns
// adjacent columns.
#pragma once

#include "device.h"

namespace twostage {

constexpr int kTaps = 11, kHalf = kTaps / 2, kPending = kTaps - 1;

constexpr __host__ __device__ int distance_to_centre(int tap) { return tap < kHalf ? kHalf - tap : tap - kHalf; }

// Weights by their distance to the window's centre.
template <typename T>
struct Window {
    T at[kHalf + 1];
    TWOSTAGE_DEVICE T tap(int index) const { return at[distance_to_centre(index)]; }
};

// Sums of one quantity down a column, for all windows that its latest row belongs to. [0] lacks its last row only.
// Nothing moves when a row is added: each sum takes over its successor's place by the addition itself.
template <typename T>
struct Column {
    T pending[kPending];

    TWOSTAGE_DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < kPending; ++i) pending[i] = 0;
    }

    // Adds a row and returns the sum that it completes.
    TWOSTAGE_DEVICE T add(const Window<T>& window, T value) {
        const T complete = multiply_add(window.tap(kTaps - 1), value, pending[0]);
#pragma unroll
        for (int i = 0; i < kPending - 1; ++i)
            pending[i] = multiply_add(window.tap(kPending - 1 - i), value, pending[i + 1]);
        pending[kPending - 1] = window.tap(0) * value;
        return complete;
    }
};

// An image's pixel of both images, and two such.
template <typename T>
struct alignas(2 * sizeof(T)) Pixel {
    T x, y;
};
template <typename T>
struct alignas(16) PixelPair {
    Pixel<T> of[2];
};

// Sums over a window, about a reference (x0, y0): X = x - x0, Y = y - y0. With a mask every term is multiplied by it.
enum SumField { kSumX, kSumY, kSquareA, kSquareB, kSquareC };
// The squares are X^2, Y^2, X*Y in the additive form; (X - Y)^2, X*Y in the product form. The mask's sum comes last.
template <bool kAdditive, bool kMasked>
struct SumFields {
    static constexpr int kMask = kAdditive ? 5 : 4, kCount = kMask + (kMasked ? 1 : 0);
};

template <typename T>
struct Reference {
    T x, y;
};

template <typename T, bool kAdditive, bool kMasked>
TWOSTAGE_DEVICE void pixel_terms(T x, T y, T mask, T (&terms)[SumFields<kAdditive, kMasked>::kCount]) {
    T weighted_x = x, weighted_y = y;
    if constexpr (kMasked) {
        weighted_x = mask * x;
        weighted_y = mask * y;
        terms[SumFields<kAdditive, kMasked>::kMask] = mask;
    }
    terms[kSumX] = weighted_x;
    terms[kSumY] = weighted_y;
    if constexpr (kAdditive) {
        terms[kSquareA] = weighted_x * x;
        terms[kSquareB] = weighted_y * y;
        terms[kSquareC] = weighted_x * y;
    } else {
        terms[kSquareA] = (weighted_x - weighted_y) * (x - y);
        terms[kSquareB] = weighted_x * y;
    }
}

template <typename T, int kColumns>
TWOSTAGE_DEVICE void read_pixels(const Pixel<T>* from, Pixel<T> (&to)[kColumns]) {
    static_assert(kColumns == 1 || kColumns == 2, "pixels are read one by one or in aligned pairs");
    if constexpr (kColumns == 2) {
        const PixelPair<T> pair = *reinterpret_cast<const PixelPair<T>*>(from);
        to[0] = pair.of[0];
        to[1] = pair.of[1];
    } else {
        to[0] = from[0];
    }
}

template <typename T, int kColumns>
TWOSTAGE_DEVICE void write_pixels(const Pixel<T> (&from)[kColumns], Pixel<T>* to) {
    if constexpr (kColumns == 2)
        *reinterpret_cast<PixelPair<T>*>(to) = {{from[0], from[1]}};
    else
        to[0] = from[0];
}

// Along a row: the sums of kColumns adjacent windows, of which the first begins at `pixels`.
template <typename T, int kColumns, bool kAdditive, bool kMasked>
TWOSTAGE_DEVICE void sum_along_row(const Pixel<T>* pixels, const T* mask, const Window<T>& window, Reference<T> about,
                                   T (&sums)[kColumns][SumFields<kAdditive, kMasked>::kCount]) {
    constexpr int kFields = SumFields<kAdditive, kMasked>::kCount;
#pragma unroll
    for (int first = 0; first < kColumns + kPending; first += kColumns) {
        Pixel<T> read[kColumns];
        read_pixels<T, kColumns>(pixels + first, read);
#pragma unroll
        for (int part = 0; part < kColumns; ++part) {
            T terms[kFields];
            pixel_terms<T, kAdditive, kMasked>(read[part].x - about.x, read[part].y - about.y,
                                               kMasked ? mask[first + part] : T(1), terms);
#pragma unroll
            for (int column = 0; column < kColumns; ++column) {
                const int tap = first + part - column;
                if (tap < 0 || tap >= kTaps) continue;
#pragma unroll
                for (int field = 0; field < kFields; ++field)
                    sums[column][field] = tap == 0 ? window.tap(tap) * terms[field]
                                                   : multiply_add(window.tap(tap), terms[field], sums[column][field]);
            }
        }
    }
}

// A score's derivative by a pixel (x, y) of its window, divided by the pixel's weight, is
//   offset + slope * (x - x0) + cross * (y - y0).
enum DerivativeField { kOffset, kSlope, kCross, kDerivativeFields };

// Derivatives of a thread's windows in one row about the thread's reference, in two parts so that a warp reads each
// without bank conflicts.
template <typename T, int kColumns>
struct alignas(2 * kColumns * sizeof(T) < 16 ? 2 * kColumns * sizeof(T) : 16) DerivativesA {
    T offset[kColumns], slope[kColumns];
};
template <typename T, int kColumns>
struct alignas(16) DerivativesB {
    T cross[kColumns];
    Reference<T> about;
};

// Back along a row: sums over the windows that cover each of kColumns adjacent pixels, about `about`. `a` and `b` hold
// the first of these windows.
template <typename T, int kColumns>
TWOSTAGE_DEVICE void sum_derivatives(const DerivativesA<T, kColumns>* a, const DerivativesB<T, kColumns>* b,
                                     const Window<T>& window, Reference<T> about,
                                     T (&sums)[kColumns][kDerivativeFields]) {
#pragma unroll
    for (int record = 0; record < (kColumns + kPending) / kColumns; ++record) {
        const DerivativesA<T, kColumns> read_a = a[record];
        const DerivativesB<T, kColumns> read_b = b[record];
        const T shift_x = about.x - read_b.about.x, shift_y = about.y - read_b.about.y;
#pragma unroll
        for (int part = 0; part < kColumns; ++part) {
            const T slope = read_a.slope[part], cross = read_b.cross[part];
            const T offset = multiply_add(slope, shift_x, multiply_add(cross, shift_y, read_a.offset[part]));
#pragma unroll
            for (int column = 0; column < kColumns; ++column) {
                const int tap = record * kColumns + part - column;
                if (tap < 0 || tap >= kTaps) continue;
                const T weight = window.tap(tap);
                if (tap == 0) {
                    sums[column][kOffset] = weight * offset;
                    sums[column][kSlope] = weight * slope;
                    sums[column][kCross] = weight * cross;
                } else {
                    sums[column][kOffset] = multiply_add(weight, offset, sums[column][kOffset]);
                    sums[column][kSlope] = multiply_add(weight, slope, sums[column][kSlope]);
                    sums[column][kCross] = multiply_add(weight, cross, sums[column][kCross]);
                }
            }
        }
    }
}

// The columns' sums of one thread, when its reference moves by (x, y).
template <typename T, bool kAdditive, bool kMasked>
TWOSTAGE_DEVICE void move_reference(Column<T> (&columns)[SumFields<kAdditive, kMasked>::kCount],
                                    const Window<T>& window, T x, T y) {
    T weight = 0;  // of the rows that a sum holds so far
#pragma unroll
    for (int i = kPending - 1; i >= 0; --i) {
        weight += window.tap(kPending - 1 - i);
        if constexpr (kMasked) weight = columns[SumFields<kAdditive, kMasked>::kMask].pending[i];
        T &sum_x = columns[kSumX].pending[i], &sum_y = columns[kSumY].pending[i];
        const T old_x = sum_x, old_y = sum_y;
        sum_x = multiply_add(-x, weight, old_x);
        sum_y = multiply_add(-y, weight, old_y);
        T& product = columns[kAdditive ? kSquareC : kSquareB].pending[i];
        product = multiply_add(-x, old_y, multiply_add(-y, sum_x, product));
        T& first = columns[kSquareA].pending[i];
        if constexpr (kAdditive) {
            T& second = columns[kSquareB].pending[i];
            first = multiply_add(-x, old_x + sum_x, first);
            second = multiply_add(-y, old_y + sum_y, second);
        } else {
            first = multiply_add(-(x - y), (old_x - old_y) + (sum_x - sum_y), first);
        }
    }
}

template <typename T>
TWOSTAGE_DEVICE void move_reference(Column<T> (&columns)[kDerivativeFields], T x, T y) {
#pragma unroll
    for (int i = 0; i < kPending; ++i)
        columns[kOffset].pending[i] = multiply_add(
            x, columns[kSlope].pending[i], multiply_add(y, columns[kCross].pending[i], columns[kOffset].pending[i]));
}

}  // namespace twostage
