// A tile of the target: copied as it is, or kept in shared memory and blended into, every thread's pixels by itself.
#pragma once

#include "paste_pixels.cuh"
#include "paste_tile.h"

namespace twostage {

struct alignas(16) Chunk {
    std::uint32_t words[4];
};

// Pixels whose rows lie in one piece of memory are copied in pieces of 16 bytes, by neighbouring lanes for each row.
template <typename T>
TWOSTAGE_DEVICE void copy_rows(const PasteProblem<T>& problem, const Tile& tile) {
    const PasteImages& images = problem.images;
    const std::int64_t size = bytes_of(images.type), row_step = images.image_stride[2] * size,
                       channel_step = images.image_stride[1] * size;
    const std::int64_t origin = tile.image * images.image_stride[0] * size + tile.channel * channel_step +
                                tile.row_begin * row_step + tile.column_begin * images.image_stride[3] * size;
    const auto* const from = static_cast<const unsigned char*>(images.target) + origin;
    auto* const to = static_cast<unsigned char*>(images.out) + origin;
    const int lanes = 1 << problem.row_lanes_log2, thread = static_cast<int>(threadIdx.x);
    const int rows = kTileRows * (problem.planes ? tile.channels : 1),
              rows_at_once = kPasteThreads >> problem.row_lanes_log2;
    constexpr int kAtOnce = 4;  // reads on their way
    for (int byte = (thread & (lanes - 1)) * 16; byte < problem.row_bytes; byte += lanes * 16) {
        for (int first = thread >> problem.row_lanes_log2; first < rows; first += kAtOnce * rows_at_once) {
            Chunk chunk[kAtOnce];
            std::int64_t place[kAtOnce];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                const int row = first + i * rows_at_once;
                place[i] = row / kTileRows * channel_step + row % kTileRows * row_step + byte;
                if (row < rows) chunk[i] = *reinterpret_cast<const Chunk*>(from + place[i]);
            }
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i)
                if (first + i * rows_at_once < rows) *reinterpret_cast<Chunk*>(to + place[i]) = chunk[i];
        }
    }
}

// The thread's pixels: one column, kRowsPerThread rows. Every thread has pixels, but they may lie beyond the image.
template <typename T, int kChannels>
class TileImage {
  public:
    TWOSTAGE_DEVICE TileImage(const PasteProblem<T>& problem, const Tile& tile, T* values /* [kChannels + 1, tile] */)
        : problem_(problem), tile_(tile) {
        const int thread = static_cast<int>(threadIdx.x);
        column_ = tile.column_begin + thread % 32;
        row_ = tile.row_begin + thread / 32 * kRowsPerThread;
        rows_ = column_ < tile.column_end ? max(min(kRowsPerThread, tile.row_end - row_), 0) : 0;
        values_ = values + thread / 32 * kRowsPerThread * kTileColumns + thread % 32;
        const std::int64_t* const stride = problem.images.image_stride;
        origin_ = tile.image * stride[0] + tile.channel * stride[1] + row_ * stride[2] + column_ * stride[3];
    }

    TWOSTAGE_DEVICE void load() {
#pragma unroll
        for (int j = 0; j < kRowsPerThread; ++j) opacity(j) = 0;
        with_image_type<T>(problem_.images.type, [&](auto kind) {
            const auto* const target = static_cast<const typename decltype(kind)::Stored*>(problem_.images.target);
            each_pixel(
                [&](std::int64_t place, int j, int channel) { value(j, channel) = number<T>(target[place], kind); });
        });
    }

    // sums[j]: the cut-out's blurred mask, then its blurred channels.
    TWOSTAGE_DEVICE void blend(const T (&sums)[kRowsPerThread][kChannels + 1], T level, BlendMode mode) {
#pragma unroll
        for (int j = 0; j < kRowsPerThread; ++j) {
            const T mask = sums[j][0], alpha = mask * level;
            if (!(alpha > T(0))) continue;
            const T clear = T(1) - alpha;
#pragma unroll
            for (int channel = 0; channel < kChannels; ++channel) {
                const T below = value(j, channel), cut = sums[j][channel + 1];
                const T above = mode == BlendMode::kNormal ? cut * level : mixed(mode, below, cut / mask) * alpha;
                value(j, channel) = multiply_add(below, clear, above);
            }
            const T after = multiply_add(opacity(j), clear, alpha);
            opacity(j) = after < T(1) ? after : T(1);
        }
    }

    // Pixels that are fully transparent keep the target's bits; all are where the tile was not `touched`.
    TWOSTAGE_DEVICE void store(bool touched) const {
        const bool in_place = problem_.in_place;
        with_image_type<T>(problem_.images.type, [&](auto kind) {
            using Stored = typename decltype(kind)::Stored;
            const auto* const target = static_cast<const Stored*>(problem_.images.target);
            auto* const out = static_cast<Stored*>(problem_.images.out);
            Stored kept[kRowsPerThread][kChannels];
            each_pixel([&](std::int64_t place, int j, int channel) {
                if (!in_place) kept[j][channel] = target[place];
            });
#pragma unroll
            for (int j = 0; j < kRowsPerThread; ++j) {
                const bool seen = touched && opacity(j) != T(0);
                if (j >= rows_ || (in_place && !seen)) continue;
#pragma unroll
                for (int channel = 0; channel < kChannels; ++channel)
                    if (channel < tile_.channels)
                        out[element(j, channel)] = seen ? pixel_of(value(j, channel), kind) : kept[j][channel];
            }
        });
    }

    TWOSTAGE_DEVICE void store_opacity(bool touched) const {
        if (tile_.channel != 0) return;  // the block of the first channels does
        const PasteImages& images = problem_.images;
        T* to = problem_.opacity + (tile_.image * images.height + row_) * images.width + column_;
        T levels[kRowsPerThread] = {};
        if (touched) {
#pragma unroll
            for (int j = 0; j < kRowsPerThread; ++j) levels[j] = opacity(j);
        }
#pragma unroll
        for (int j = 0; j < kRowsPerThread; ++j, to += images.width)
            if (j < rows_) *to = levels[j];
    }

  private:
    TWOSTAGE_DEVICE T& value(int j, int channel) const { return values_[(channel * kTileRows + j) * kTileColumns]; }
    TWOSTAGE_DEVICE T& opacity(int j) const { return value(j, kChannels); }

    TWOSTAGE_DEVICE std::int64_t element(int j, int channel) const {
        const std::int64_t* const stride = problem_.images.image_stride;
        return origin_ + j * stride[2] + channel * stride[1];
    }

    // body(index of the element, row of the thread, channel).
    template <typename Body>
    TWOSTAGE_DEVICE void each_pixel(Body&& body) const {
#pragma unroll
        for (int j = 0; j < kRowsPerThread; ++j)
#pragma unroll
            for (int channel = 0; channel < kChannels; ++channel)
                if (j < rows_ && channel < tile_.channels) body(element(j, channel), j, channel);
    }

    TWOSTAGE_DEVICE T mixed(BlendMode mode, T below, T above) const {
        const T low = static_cast<T>(problem_.images.low), range = static_cast<T>(problem_.images.high) - low;
        const T scale = T(1) / range, b = (below - low) * scale, a = (above - low) * scale;
        T result;
        if (mode == BlendMode::kMultiply) {
            result = b * a;
        } else if (mode == BlendMode::kScreen) {
            result = T(1) - (T(1) - b) * (T(1) - a);
        } else if (mode == BlendMode::kDarken) {
            result = b < a ? b : a;
        } else if (mode == BlendMode::kLighten) {
            result = b > a ? b : a;
        } else {
            const T sum = b + a - T(0.5);
            result = sum > T(0) ? (sum < T(1) ? sum : T(1)) : T(0);
        }
        return low + result * range;
    }

    const PasteProblem<T>& problem_;
    const Tile& tile_;
    int column_, row_, rows_;
    std::int64_t origin_;
    T* values_;  // the thread's first
};

}  // namespace twostage
