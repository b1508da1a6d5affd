// Which polygons of an image reach into a tile.
#pragma once

#include "paste.h"
#include "paste_shape.cuh"
#include "paste_tile.h"

namespace twostage {

// No pixel outside is inside the polygon.
struct PixelBox {
    int row_begin, row_end, column_begin, column_end;

    TWOSTAGE_DEVICE bool empty() const { return row_begin >= row_end || column_begin >= column_end; }
};

namespace find {

constexpr int kRounds = 8;
constexpr int kAtOnce = kRounds * kPasteThreads;  // polygons looked at between two barriers

TWOSTAGE_DEVICE int clamped(double value, std::int64_t highest) {
    return value <= 0 ? 0 : value >= static_cast<double>(highest) ? static_cast<int>(highest) : static_cast<int>(value);
}

template <typename T>
TWOSTAGE_DEVICE bool finite(T value) {
    return value - value == T(0);
}

template <typename T>
TWOSTAGE_DEVICE bool all_finite(const T* values, std::int64_t first, int count) {
    if (values == nullptr) return true;
    T nothing = 0;
#pragma unroll 4
    for (int i = 0; i < count; ++i) nothing += values[first + i] - values[first + i];
    return nothing == T(0);
}

template <typename T>
TWOSTAGE_DEVICE bool within(const T* values, std::int64_t index, T lowest, T highest) {
    return values == nullptr || (values[index] >= lowest && values[index] <= highest);
}

}  // namespace find

// 0 keeps hard edges.
template <typename T>
TWOSTAGE_DEVICE int blur_radius(T sigma) {
    if (static_cast<double>(sigma) < kSmallestBlurSigma) return 0;
    return static_cast<int>(ceil(static_cast<T>(kBlurExtent) * sigma));
}

// Empty where a vertex is not finite. `margin` is the furthest that noise moves an edge, in pixels.
template <typename T>
TWOSTAGE_DEVICE PixelBox pixel_box(const T* vertices /* [7, 2] */, int count, T margin, const PasteImages& images) {
    T low_x = 0, high_x = 0, low_y = 0, high_y = 0, nothing = 0;
#pragma unroll
    for (int i = 0; i < kMaxVertices; ++i) {
        const T x = vertices[2 * i], y = vertices[2 * i + 1];
        if (i < count) nothing += (x - x) + (y - y);
        if (i == 0) {
            low_x = high_x = x;
            low_y = high_y = y;
        } else if (i < count) {
            low_x = x < low_x ? x : low_x;
            high_x = x > high_x ? x : high_x;
            low_y = y < low_y ? y : low_y;
            high_y = y > high_y ? y : high_y;
        }
    }
    if (!(nothing == T(0))) return {0, 0, 0, 0};
    const double left = static_cast<double>(low_x), right = static_cast<double>(high_x);
    const double top = static_cast<double>(low_y), bottom = static_cast<double>(high_y);
    const double more = margin > T(0) ? 1 + static_cast<double>(margin) : 0;
    // A crossing far outside the image is rounded to more than a pixel.
    const double rounding = fmax(fmax(-left, right), fmax(-top, bottom)) * (sizeof(T) == 4 ? 0x1p-20 : 0x1p-49);
    return {find::clamped(floor(top - 0.5 - more), images.height), find::clamped(ceil(bottom + more), images.height),
            find::clamped(floor(left - 0.5 - more - rounding), images.width),
            find::clamped(ceil(right + 0.5 + more + rounding), images.width)};
}

// Whether a source image can be read, as far as its place in memory goes.
TWOSTAGE_DEVICE bool lies_in_memory(const PasteImages& images, std::int64_t source) {
    if (source < 0 || source >= images.sources) return false;
    if (images.layout == nullptr) return true;
    const std::int64_t* layout = images.layout + 3 * source;
    const std::int64_t offset = layout[0], height = layout[1], width = layout[2];
    if (height < 1 || width < 1 || height > kLongestCudaSource || width > kLongestCudaSource ||
        width * bytes_of(images.source_type) > kLongestCudaStep)
        return false;
    // No memory holds so many pixels, and so many times the channels are a number of 63 bits.
    constexpr std::int64_t kMostPixels = std::int64_t(1) << 46;
    const std::int64_t pixels = height * width, room = images.source_elements - offset;
    return offset >= 0 && offset <= images.source_elements && pixels <= kMostPixels && pixels * images.channels <= room;
}

// As the CPU has it (csrc/cpu/paste.cpp), for what pixel_box has not looked at. The block waits for the thread that
// does this, so all is read at once, and nothing is left out because of what was read before.
template <typename T>
TWOSTAGE_DEVICE bool usable(const PasteImages& images, const PastePolygons<T>& p, std::int64_t i) {
    const int channels = static_cast<int>(images.channels);
    bool good = find::all_finite(p.transform, i * 6, 6);
    good &= find::within(p.strength, i, T(0), T(1));
    good &= find::within(p.edge_amplitude, i, T(0), T(kMaxEdgeAmplitude));
    good &= p.edge_grain == nullptr || find::finite(p.edge_grain[i]);
    good &= find::within(p.edge_grain, i, T(1), T(INFINITY));
    const std::int64_t mode = p.blend_mode == nullptr ? 0 : p.blend_mode[i];
    good &= mode >= 0;
    good &= mode <= static_cast<int>(BlendMode::kGrainMerge);
    good &= find::all_finite(p.color_gain, i * images.channels, channels);
    good &= find::all_finite(p.color_offset, i * images.channels, channels);
    return lies_in_memory(images, p.source_index[i]) && good;
}

// Whether a polygon of the tile's image can be pasted and may touch a pixel of the tile.
template <typename T>
TWOSTAGE_DEVICE bool reaches(const PasteProblem<T>& problem, std::int64_t polygon, const Tile& tile) {
    const PastePolygons<T>& p = problem.polygons;
    const std::int64_t count = p.vertex_count[polygon];
    const T sigma = p.blur_sigma[polygon];
    const T strength = p.strength == nullptr ? T(1) : p.strength[polygon];
    const T margin = p.edge_amplitude == nullptr ? T(0) : p.edge_amplitude[polygon];
    const PixelBox box =
        pixel_box(p.vertices + polygon * 2 * kMaxVertices, static_cast<int>(count), margin, problem.images);
    if (count < 3 || count > kMaxVertices || !(sigma >= T(0) && sigma <= T(kMaxBlurSigma)) || !(strength > T(0)))
        return false;
    const int radius = blur_radius(sigma);
    return box.row_begin < box.row_end && box.column_begin < box.column_end && box.row_begin - radius < tile.row_end &&
           box.row_end + radius > tile.row_begin && box.column_begin - radius < tile.column_end &&
           box.column_end + radius > tile.column_begin && usable(problem.images, p, polygon);
}

// Looks at the polygons from `begin` on, at most find::kAtOnce of them: bit b of found[i] says whether polygon
// begin + 32 i + b is the tile's image's and reaches into the tile. Returns how many words of `found` there are.
// With image_index every block looks at every polygon of the batch, without it at those of its own image.
template <typename T>
TWOSTAGE_DEVICE int find_polygons(const PasteProblem<T>& problem, const Tile& tile, std::int64_t begin,
                                  std::int64_t end, unsigned* found) {
    const int thread = static_cast<int>(threadIdx.x);
    const std::int64_t left = end - begin;
    const int count = left < find::kAtOnce ? static_cast<int>(left) : find::kAtOnce;
    const std::int64_t* const owners = problem.polygons.image_index;
    const int rounds = (count + kPasteThreads - 1) / kPasteThreads;
    unsigned own = ~0u;
    if (owners != nullptr) {
        own = 0;
#pragma unroll
        for (int round = 0; round < find::kRounds; ++round) {
            if (round >= rounds) break;
            const int place = round * kPasteThreads + thread;
            if (place < count && owners[begin + place] == tile.image) own |= 1u << round;
        }
    }
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
        const int place = round * kPasteThreads + thread;
        const bool reaching = place < count && (own >> round & 1u) != 0 && reaches(problem, begin + place, tile);
        const unsigned lanes = __ballot_sync(0xffffffffu, reaching);
        if (thread % 32 == 0) found[place / 32] = lanes;
    }
    __syncthreads();
    return (count + 31) / 32;
}

}  // namespace twostage
