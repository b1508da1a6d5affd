// This file must be compiled without fused multiply-add: which pixels are inside must not depend on the processor.
#include "paste_shape.h"

#include <cmath>

#include "../edge_noise.h"
#include "../paste.h"

namespace twostage {
namespace {

// The lattice along one row of pixels: corners are blended downwards once for each of them.
class NoiseRow {
  public:
    NoiseRow(std::uint32_t seed, std::uint32_t y) : seed_(seed), row_(y >> 16), down_(noise::smooth(y)) {}

    std::int32_t at(std::uint32_t x) {
        const std::uint32_t column = x >> 16;
        if (!started_ || column != column_) {
            left_ = noise::on_column(seed_, column, row_, down_);
            right_ = noise::on_column(seed_, column + 1, row_, down_);
            column_ = column;
            started_ = true;
        }
        return noise::between(left_, right_, noise::smooth(x));
    }

  private:
    std::uint32_t seed_, row_;
    std::int32_t down_, left_ = 0, right_ = 0;
    std::uint32_t column_ = 0;
    bool started_ = false;
};

// The displaced centres of the row's pixels: `place` is their x or y in 1/256 pixel where `step` is 256 or 0.
template <typename T>
void displaced(const EdgeNoise& noise, std::uint32_t word, std::int64_t row, const PixelBox& box, std::int64_t place,
               std::int64_t step, T* to) {
    const std::uint32_t y = static_cast<std::uint32_t>(row) * noise.step;
    NoiseRow coarse(word, y), fine(word ^ noise::kFieldStep, 2 * y);
    for (std::int64_t column = box.column_begin; column < box.column_end; ++column, place += step) {
        const std::uint32_t x = static_cast<std::uint32_t>(column) * noise.step;
        const std::int64_t value = (3 * coarse.at(x) + fine.at(2 * x)) >> 2;
        *to++ = static_cast<T>(place + ((value * noise.reach) >> 15)) / static_cast<T>(kSubpixels);
    }
}

template <typename T>
struct Edge {
    T low_x, low_y, high_x, high_y;
};

template <typename T>
Edge<T> edge_of(const Shape<T>& shape, int index) {
    const T x0 = shape.x[index], y0 = shape.y[index], x1 = shape.x[index + 1], y1 = shape.y[index + 1];
    return y1 < y0 ? Edge<T>{x1, y1, x0, y0} : Edge<T>{x0, y0, x1, y1};
}

template <typename T>
T crossing(const Edge<T>& edge, T y) {
    return edge.low_x + (y - edge.low_y) / (edge.high_y - edge.low_y) * (edge.high_x - edge.low_x);
}

template <typename T>
std::int64_t straight_runs(const Shape<T>& shape, std::int64_t row, Run* runs) {
    const T y = static_cast<T>(row) + T(0.5);
    T crossings[kMaxVertices + 1];
    int count = 0;
    for (int index = 0; index < shape.vertices; ++index) {
        const Edge<T> edge = edge_of(shape, index);
        if (!(edge.low_y <= y && y < edge.high_y)) continue;
        T x = crossing(edge, y);
        if (std::isnan(x)) x = -INFINITY;  // of an edge too long for T: no pixel lies left of it
        int place = count++;
        for (; place > 0 && crossings[place - 1] > x; --place) crossings[place] = crossings[place - 1];
        crossings[place] = x;
    }
    // A centre left of an odd number of crossings is inside.
    const T lowest = static_cast<T>(shape.box.column_begin), highest = static_cast<T>(shape.box.column_end);
    const auto first_right_of = [&](T x) {
        const T column = std::ceil(x - T(0.5));
        return static_cast<std::int64_t>(column < lowest ? lowest : column > highest ? highest : column);
    };
    std::int64_t found = 0;
    for (int index = 0; index + 1 < count; index += 2) {
        const Run run{first_right_of(crossings[index]), first_right_of(crossings[index + 1])};
        if (run.begin >= run.end) continue;
        if (found > 0 && runs[found - 1].end == run.begin)
            runs[found - 1].end = run.end;
        else
            runs[found++] = run;
    }
    return found;
}

template <typename T>
std::int64_t noisy_runs(const Shape<T>& shape, std::int64_t row, void* memory, Run* runs) {
    const std::int64_t begin = shape.box.column_begin, width = shape.box.column_end - begin;
    T* const x = static_cast<T*>(memory);
    T* const y = x + width;
    auto* const inside = reinterpret_cast<std::uint8_t*>(y + width);
    const std::int64_t half = kSubpixels / 2;
    displaced(shape.noise, shape.noise.words[0], row, shape.box, begin * kSubpixels + half, kSubpixels, x);
    displaced(shape.noise, shape.noise.words[1], row, shape.box, row * kSubpixels + half, std::int64_t(0), y);
    for (std::int64_t i = 0; i < width; ++i) inside[i] = 0;
    for (int index = 0; index < shape.vertices; ++index) {
        const Edge<T> edge = edge_of(shape, index);
        if (edge.low_y == edge.high_y) continue;
        for (std::int64_t i = 0; i < width; ++i)
            inside[i] ^=
                static_cast<std::uint8_t>((edge.low_y <= y[i]) & (y[i] < edge.high_y) & (x[i] < crossing(edge, y[i])));
    }
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < width; ++i) {
        if (!inside[i]) continue;
        if (found > 0 && runs[found - 1].end == begin + i)
            ++runs[found - 1].end;
        else
            runs[found++] = {begin + i, begin + i + 1};
    }
    return found;
}

template <typename T>
std::int64_t clamped(double value, std::int64_t highest) {
    return value <= 0 ? 0 : value >= static_cast<double>(highest) ? highest : static_cast<std::int64_t>(value);
}

}  // namespace

template <typename T>
Shape<T> make_shape(const T* points, int vertices, T amplitude, T grain, std::int64_t seed, std::int64_t height,
                    std::int64_t width) {
    Shape<T> shape{};
    shape.vertices = vertices;
    double low_x = INFINITY, high_x = -INFINITY, low_y = INFINITY, high_y = -INFINITY;
    for (int index = 0; index < vertices; ++index) {
        const T x = points[2 * index], y = points[2 * index + 1];
        shape.x[index] = x;
        shape.y[index] = y;
        low_x = std::fmin(low_x, static_cast<double>(x));
        high_x = std::fmax(high_x, static_cast<double>(x));
        low_y = std::fmin(low_y, static_cast<double>(y));
        high_y = std::fmax(high_y, static_cast<double>(y));
    }
    shape.x[vertices] = shape.x[0];
    shape.y[vertices] = shape.y[0];
    shape.noise.reach = static_cast<std::int64_t>(std::nearbyint(amplitude * T(kSubpixels)));
    double margin = 0;
    if (shape.noise.reach > 0) {
        shape.noise.step = static_cast<std::uint32_t>(std::nearbyint(T(65536) / grain));
        const auto word = static_cast<std::uint32_t>(seed);
        for (std::uint32_t field = 0; field < 2; ++field)
            shape.noise.words[field] = noise::mix(word + field * noise::kFieldStep);
        margin = 1 + static_cast<double>(shape.noise.reach) / kSubpixels;
    }
    // A crossing far outside the image is rounded to more than a pixel.
    const double largest = std::fmax(std::fmax(-low_x, high_x), std::fmax(-low_y, high_y));
    const double rounding = largest * (sizeof(T) == 4 ? 0x1p-20 : 0x1p-49);
    shape.box = {clamped<T>(std::floor(low_y - 0.5 - margin), height), clamped<T>(std::ceil(high_y + margin), height),
                 clamped<T>(std::floor(low_x - 0.5 - margin - rounding), width),
                 clamped<T>(std::ceil(high_x + 0.5 + margin + rounding), width)};
    return shape;
}

template <typename T>
std::int64_t most_runs(const Shape<T>& shape) {
    static_assert(kMostStraightRuns == kMaxVertices / 2);
    const std::int64_t apart = (shape.box.column_end - shape.box.column_begin) / 2 + 1;
    return shape.noise.reach > 0 && apart > kMostStraightRuns ? apart : kMostStraightRuns;
}

template <typename T>
std::int64_t row_memory(const Shape<T>& shape) {
    const std::int64_t width = shape.box.column_end - shape.box.column_begin;
    return shape.noise.reach > 0 ? width * static_cast<std::int64_t>(2 * sizeof(T) + 1) : 0;
}

template <typename T>
std::int64_t row_runs(const Shape<T>& shape, std::int64_t row, void* memory, Run* runs) {
    return shape.noise.reach > 0 ? noisy_runs(shape, row, memory, runs) : straight_runs(shape, row, runs);
}

template Shape<float> make_shape(const float*, int, float, float, std::int64_t, std::int64_t, std::int64_t);
template Shape<double> make_shape(const double*, int, double, double, std::int64_t, std::int64_t, std::int64_t);
template std::int64_t most_runs(const Shape<float>&);
template std::int64_t most_runs(const Shape<double>&);
template std::int64_t row_memory(const Shape<float>&);
template std::int64_t row_memory(const Shape<double>&);
template std::int64_t row_runs(const Shape<float>&, std::int64_t, void*, Run*);
template std::int64_t row_runs(const Shape<double>&, std::int64_t, void*, Run*);

}  // namespace twostage
