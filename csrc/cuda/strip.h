// What a launch of the strip kernel shares: the images, the outputs and how they are cut into strips.
#pragma once

#include "block_sums.cuh"
#include "score.cuh"

namespace twostage {

// Two roles: where both gradients are wanted, half of the blocks take the images in the other order.
template <typename T>
struct StripProblem {
    const void* image[2];
    T* gradient[2];  // of the first image in each role
    ImageType type;
    const T* sigma;
    const T* mask;
    const MaskScale<T>* mask_scales;
    const T* upstream;
    T* map;
    BlockSums* sums;  // of each block in the first role, or null
    ScoreConstants<T> constants;
    T highest;
    // Derivatives of the reduced value by one window's score and by one pixel's absolute difference; with a mask, each
    // divided by the sample's MaskScale. The first is 1 with an upstream gradient.
    T window_factor, pixel_factor;
    bool has_difference;  // whether the value has a term of absolute differences
    T steep;              // a change of the score that its gradient's reference must not make
    std::int64_t channels;
    int height, width;
    int lead;  // windows are centred at least this far from the image's border
    int strips, segments;
};

// Columns of a strip, rows of a segment: balanced parts.
constexpr __host__ __device__ int part_begin(int length, int parts, int part) {
    return static_cast<int>(static_cast<std::int64_t>(length) * part / parts);
}

// The windows of a block's threads along one row.
struct StripColumns {
    int pixel_begin, pixel_end;    // columns whose gradients and scores are this strip's
    int window_begin, window_end;  // centres of the windows that are scored
    int base;                      // centre of the first thread's first window, scored or not
};

// With gradients, windows that reach the strip's pixels are scored too. With two columns a thread, strips begin at even
// columns and `base` is odd: pairs of windows, of their pixels and of gradients then all begin at even columns.
constexpr __host__ __device__ StripColumns strip_columns(int width, int lead, int strips, int strip, bool gradient,
                                                         int columns_per_thread) {
    StripColumns c{};
    const int reach = gradient ? kHalf : 0;
    const int groups = (width + columns_per_thread - 1) / columns_per_thread;
    c.pixel_begin = columns_per_thread * part_begin(groups, strips, strip);
    c.pixel_end = columns_per_thread * part_begin(groups, strips, strip + 1);
    if (c.pixel_end > width) c.pixel_end = width;
    c.window_begin = c.pixel_begin - reach > lead ? c.pixel_begin - reach : lead;
    c.window_end = c.pixel_end + reach < width - lead ? c.pixel_end + reach : width - lead;
    c.base = c.window_begin;
    if (columns_per_thread == 2 && c.base % 2 == 0) c.base -= 1;
    return c;
}

// Layout of a block's shared memory. Rows are kept until the gradients of their pixels are complete.
template <typename T, int kColumns, bool kGradient, bool kMasked>
struct StripMemory {
    static constexpr int kRows = kGradient ? 16 : 2;     // a power of two
    static constexpr int kMargin = kPending / kColumns;  // records of 0 beside those of the threads

    static constexpr __host__ __device__ int row_pixels(int threads) { return kColumns * threads + kPending; }
    static constexpr __host__ __device__ int records(int threads) { return threads + 2 * kMargin; }
    static constexpr __host__ __device__ std::size_t pixel_bytes(int threads) {
        return sizeof(Pixel<T>) * static_cast<std::size_t>(kRows * row_pixels(threads));
    }
    static constexpr __host__ __device__ std::size_t a_bytes(int threads) {
        return kGradient ? sizeof(DerivativesA<T, kColumns>) * static_cast<std::size_t>(2 * records(threads)) : 0;
    }
    static constexpr __host__ __device__ std::size_t b_bytes(int threads) {
        return kGradient ? sizeof(DerivativesB<T, kColumns>) * static_cast<std::size_t>(2 * records(threads)) : 0;
    }
    static constexpr __host__ __device__ std::size_t bytes(int threads) {
        const std::size_t mask = kMasked ? sizeof(T) * static_cast<std::size_t>(kRows * row_pixels(threads)) : 0;
        return pixel_bytes(threads) + a_bytes(threads) + b_bytes(threads) + mask;
    }
};

}  // namespace twostage
