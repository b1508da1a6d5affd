// Bilinear samples of a polygon's source image.
#pragma once

#include "paste_pixels.cuh"
#include "paste_tile.h"

namespace twostage {

// Where a pixel is read along one axis: before and behind its point, which lies `part` of the way between them.
template <typename T>
struct Place {
    int first;
    bool last;  // nothing lies behind
    T part;
};

// Positions along one axis of the source in whole numbers of 2^-32 pixels: exact enough on images of any size, without
// arithmetic in double, which many GPUs have little of.
struct FixedAxis {
    std::uint64_t start, along, down;
};

// The same in double, for images in double and for maps that are too steep for the other.
struct DoubleAxis {
    double start, along, down;

    template <typename T>
    TWOSTAGE_DEVICE void set(const T* map /* [3] */, int column, int row) {
        along = static_cast<double>(map[0]);
        down = static_cast<double>(map[1]);
        start = along * (column + 0.5) + down * (row + 0.5) + static_cast<double>(map[2]) - 0.5;
    }

    TWOSTAGE_DEVICE bool can_be_fixed() const {
        constexpr double kSteepest = 1 << 20, kFurthest = 1 << 29;  // a tile reaches 448 pixels: below 2^31 in all
        return fabs(along) < kSteepest && fabs(down) < kSteepest && fabs(start) < kFurthest;
    }

    TWOSTAGE_DEVICE FixedAxis fixed() const {
        const auto whole = [](double value) { return static_cast<std::uint64_t>(llrint(value * 0x1p32)); };
        return {whole(start), whole(along), whole(down)};
    }
};

TWOSTAGE_DEVICE Place<float> place_at(const FixedAxis& axis, int last, int dx, int dy) {
    const std::uint64_t position =
        axis.start + static_cast<std::uint32_t>(dx) * axis.along + static_cast<std::uint32_t>(dy) * axis.down;
    const int pixel = static_cast<int>(static_cast<std::int64_t>(position) >> 32);
    const bool inner = pixel >= 0 && pixel < last;
    const int first = pixel < 0 ? 0 : pixel < last ? pixel : last;
    return {first, first >= last, inner ? static_cast<float>(static_cast<std::uint32_t>(position)) * 0x1p-32f : 0.0f};
}

template <typename T>
TWOSTAGE_DEVICE Place<T> place_at(const DoubleAxis& axis, int last, int dx, int dy) {
    const double position = axis.start + axis.along * dx + axis.down * dy, most = static_cast<double>(last);
    if (!(position < most)) return {last, true, T(0)};
    if (!(position > 0)) return {0, last == 0, T(0)};
    const int first = static_cast<int>(position);
    return {first, false, static_cast<T>(position - static_cast<double>(first))};
}

// What becomes of the samples, and where seldom maps find them.
template <typename T>
struct SourceChange {
    DoubleAxis x, y;
    bool coloured;
    T low, high, gain[kMostPasteChannels], offset[kMostPasteChannels];
};

// Small enough for a thread to keep.
template <typename T>
struct Source {
    const unsigned char* pixels;  // of the block's first channel
    std::int64_t channel_bytes;   // from one to the next
    int row_bytes, column_bytes;
    int last_row, last_column;
    FixedAxis x, y;
    PixelType type;
    bool fixed;
    T scale;

    // Positions are counted from the target's pixel (column, row) on. The polygon must be usable.
    TWOSTAGE_DEVICE void set(const PasteProblem<T>& problem, std::int64_t polygon, const Tile& tile, int column,
                             int row, SourceChange<T>& change) {
        const PasteImages& images = problem.images;
        const PastePolygons<T>& p = problem.polygons;
        const std::int64_t source = p.source_index[polygon], size = bytes_of(images.source_type);
        std::int64_t first, height, width, stride[3];
        if (images.layout != nullptr) {
            first = images.layout[3 * source];
            height = images.layout[3 * source + 1];
            width = images.layout[3 * source + 2];
            stride[0] = height * width;
            stride[1] = width;
            stride[2] = 1;
        } else {
            first = source * images.source_stride[0];
            height = images.source_height;
            width = images.source_width;
            for (int axis = 0; axis < 3; ++axis) stride[axis] = images.source_stride[axis + 1];
        }
        channel_bytes = stride[0] * size;
        row_bytes = static_cast<int>(stride[1] * size);
        column_bytes = static_cast<int>(stride[2] * size);
        pixels = static_cast<const unsigned char*>(images.source) + first * size + tile.channel * channel_bytes;
        last_row = static_cast<int>(height) - 1;
        last_column = static_cast<int>(width) - 1;
        type = images.source_type;
        scale = type == PixelType::kUint8 && images.type != PixelType::kUint8 ? T(1.0 / 255) : T(1);

        change.x.set(p.transform + polygon * 6, column, row);
        change.y.set(p.transform + polygon * 6 + 3, column, row);
        fixed = sizeof(T) == 4 && change.x.can_be_fixed() && change.y.can_be_fixed();
        x = fixed ? change.x.fixed() : FixedAxis{0, 0, 0};
        y = fixed ? change.y.fixed() : FixedAxis{0, 0, 0};
        change.low = static_cast<T>(images.low);
        change.high = static_cast<T>(images.high);
        change.coloured = p.color_gain != nullptr || p.color_offset != nullptr;
        for (int channel = 0; channel < tile.channels; ++channel) {
            const std::int64_t entry = polygon * images.channels + tile.channel + channel;
            change.gain[channel] = p.color_gain == nullptr ? T(1) : p.color_gain[entry];
            change.offset[channel] = p.color_offset == nullptr ? T(0) : p.color_offset[entry];
        }
    }

    // The content of the block's channels at the pixel (dx, dy) from the origin; neither is negative.
    template <int kChannels>
    TWOSTAGE_DEVICE void sample(const SourceChange<T>& change, int dx, int dy, int channels,
                                T (&content)[kChannels]) const {
        Place<T> column, row;
        if constexpr (sizeof(T) == 4) {
            if (fixed) {
                column = place_at(x, last_column, dx, dy);
                row = place_at(y, last_row, dx, dy);
            } else {
                column = place_at<T>(change.x, last_column, dx, dy);
                row = place_at<T>(change.y, last_row, dx, dy);
            }
        } else {
            column = place_at<T>(change.x, last_column, dx, dy);
            row = place_at<T>(change.y, last_row, dx, dy);
        }
        const unsigned char* const upper = pixels + static_cast<std::int64_t>(row.first) * row_bytes +
                                           static_cast<std::int64_t>(column.first) * column_bytes;
        const int right = column.last ? 0 : column_bytes, below = row.last ? 0 : row_bytes;
        with_source_type<T>(type, [&](auto kind) {
            using Stored = typename decltype(kind)::Stored;
            constexpr int kAtOnce = kChannels < 4 ? kChannels : 1;  // as registers allow
#pragma unroll
            for (int first = 0; first < kChannels; first += kAtOnce) {
                Stored pixels[kAtOnce][4];
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i) {
                    if (first + i >= channels) continue;
                    const unsigned char* const at = upper + (first + i) * channel_bytes;
                    const unsigned char* const next = at + below;
                    pixels[i][0] = __ldg(reinterpret_cast<const Stored*>(at));
                    pixels[i][1] = __ldg(reinterpret_cast<const Stored*>(at + right));
                    pixels[i][2] = __ldg(reinterpret_cast<const Stored*>(next));
                    pixels[i][3] = __ldg(reinterpret_cast<const Stored*>(next + right));
                }
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i) {
                    if (first + i >= channels) continue;
                    const T corner = number<T>(pixels[i][0], kind), lower = number<T>(pixels[i][2], kind);
                    const T upper_edge = multiply_add(column.part, number<T>(pixels[i][1], kind) - corner, corner);
                    const T lower_edge = multiply_add(column.part, number<T>(pixels[i][3], kind) - lower, lower);
                    content[first + i] = multiply_add(row.part, lower_edge - upper_edge, upper_edge) * scale;
                }
            }
        });
        if (!change.coloured) return;
#pragma unroll
        for (int channel = 0; channel < kChannels; ++channel) {
            if (channel >= channels) continue;
            const T value = multiply_add(content[channel], change.gain[channel], change.offset[channel]);
            content[channel] = value < change.low ? change.low : value > change.high ? change.high : value;  // or NaN
        }
    }
};

}  // namespace twostage
