// Which pixels are inside a polygon. Rounded numbers decide that, which must be the same everywhere: every operation
// on them is rounded by itself, and this must be compiled without flushing subnormal numbers to 0.
#pragma once

#include "../edge_noise.h"
#include "../paste.h"
#include "device.h"

namespace twostage {

TWOSTAGE_DEVICE float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
TWOSTAGE_DEVICE double rounded_sum(double a, double b) { return __dadd_rn(a, b); }
TWOSTAGE_DEVICE float rounded_product(float a, float b) { return __fmul_rn(a, b); }
TWOSTAGE_DEVICE double rounded_product(double a, double b) { return __dmul_rn(a, b); }
TWOSTAGE_DEVICE float rounded_quotient(float a, float b) { return __fdiv_rn(a, b); }
TWOSTAGE_DEVICE double rounded_quotient(double a, double b) { return __ddiv_rn(a, b); }

// See ../edge_noise.h.
struct EdgeNoise {
    int reach;               // 1/256 pixel, 0 for straight edges
    std::uint32_t step;      // cells from pixel to pixel, 1/65536
    std::uint32_t words[2];  // of the displacements along x and along y
};

namespace noise {

TWOSTAGE_DEVICE int value(std::uint32_t seed, std::uint32_t x, std::uint32_t y) {
    const std::uint32_t column = x >> 16, row = y >> 16;
    const int down = smooth(y);
    return between(on_column(seed, column, row, down), on_column(seed, column + 1, row, down), smooth(x));
}

// In 1/256 pixel.
TWOSTAGE_DEVICE int displacement(const EdgeNoise& edge, int field, int column, int row) {
    const std::uint32_t word = edge.words[field];
    const std::uint32_t x = static_cast<std::uint32_t>(column) * edge.step;
    const std::uint32_t y = static_cast<std::uint32_t>(row) * edge.step;
    const int both = (3 * value(word, x, y) + value(word ^ kFieldStep, 2 * x, 2 * y)) >> 2;
    return (both * edge.reach) >> 15;
}

}  // namespace noise

template <typename T>
TWOSTAGE_DEVICE EdgeNoise edge_noise(const PastePolygons<T>& p, std::int64_t polygon) {
    EdgeNoise edge{0, 0, {0, 0}};
    if (p.edge_amplitude == nullptr) return edge;
    edge.reach = static_cast<int>(rint(rounded_product(p.edge_amplitude[polygon], T(kSubpixels))));
    edge.step = static_cast<std::uint32_t>(rint(rounded_quotient(T(65536), p.edge_grain[polygon])));
    const std::uint32_t word = static_cast<std::uint32_t>(p.edge_seed[polygon]);
    edge.words[0] = noise::mix(word);
    edge.words[1] = noise::mix(word + noise::kFieldStep);
    return edge;
}

template <typename T>
struct Outline {
    T x[kMaxVertices + 1], y[kMaxVertices + 1];  // the first vertex again behind the last
    int vertices;
    EdgeNoise noise;
};

template <typename T>
struct Edge {
    T low_x, low_y, high_x, high_y;

    TWOSTAGE_DEVICE bool spans(T y) const { return low_y <= y && y < high_y; }
    TWOSTAGE_DEVICE T crossing(T y) const {
        const T part = rounded_quotient(rounded_sum(y, -low_y), rounded_sum(high_y, -low_y));
        return rounded_sum(low_x, rounded_product(part, rounded_sum(high_x, -low_x)));
    }
};

template <typename T>
TWOSTAGE_DEVICE Edge<T> edge_of(const Outline<T>& outline, int index) {
    const T x0 = outline.x[index], y0 = outline.y[index], x1 = outline.x[index + 1], y1 = outline.y[index + 1];
    return y1 < y0 ? Edge<T>{x1, y1, x0, y0} : Edge<T>{x0, y0, x1, y1};
}

// How many of the columns from `begin` to `end` have their centres left of where the edge crosses the row.
template <typename T>
TWOSTAGE_DEVICE int columns_left_of(const Edge<T>& edge, int row, int begin, int end) {
    const T y = static_cast<T>(row) + T(0.5);
    if (!edge.spans(y)) return 0;
    const T column = ceil(rounded_sum(edge.crossing(y), T(-0.5)));
    // NaN, of an edge too long for T, lies right of no pixel.
    return !(column > static_cast<T>(begin)) ? 0
           : column >= static_cast<T>(end)   ? end - begin
                                             : static_cast<int>(column) - begin;
}

// Whether the displaced centre of a pixel is inside.
template <typename T>
TWOSTAGE_DEVICE bool inside_with_noise(const Outline<T>& outline, int row, int column) {
    const int dx = noise::displacement(outline.noise, 0, column, row);
    const int dy = noise::displacement(outline.noise, 1, column, row);
    const T x = static_cast<T>(column * kSubpixels + kSubpixels / 2 + dx) * T(1.0 / kSubpixels);
    const T y = static_cast<T>(row * kSubpixels + kSubpixels / 2 + dy) * T(1.0 / kSubpixels);
    bool inside = false;
#pragma unroll 1
    for (int index = 0; index < outline.vertices; ++index) {
        const Edge<T> edge = edge_of(outline, index);
        if (edge.spans(y)) inside ^= x < edge.crossing(y);
    }
    return inside;
}

}  // namespace twostage
