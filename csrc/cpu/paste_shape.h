// The pixels inside a polygon, row by row.
#pragma once

#include <cstdint>

namespace twostage {

// Neighbouring pixels of a row, begin <= x < end.
struct Run {
    std::int64_t begin, end;
};

struct PixelBox {
    std::int64_t row_begin, row_end, column_begin, column_end;

    bool empty() const { return row_begin >= row_end || column_begin >= column_end; }
};

// Smooth noise on a lattice, in integers alone.
struct EdgeNoise {
    std::int64_t reach;      // 1/256 pixel, 0 for straight edges
    std::uint32_t step;      // cells from pixel to pixel, 1/65536
    std::uint32_t words[2];  // of the displacements along x and along y
};

template <typename T>
struct Shape {
    T x[8], y[8];  // the first vertex again behind the last
    int vertices;
    EdgeNoise noise;
    PixelBox box;  // no pixel outside is inside; within the image
};

// `points` [7, 2]. `amplitude` 0 leaves the edges straight.
template <typename T>
Shape<T> make_shape(const T* points, int vertices, T amplitude, T grain, std::int64_t seed, std::int64_t height,
                    std::int64_t width);

// How many runs a row of a shape without noise can have.
constexpr std::int64_t kMostStraightRuns = 3;

// How many runs a row of the shape can have.
template <typename T>
std::int64_t most_runs(const Shape<T>& shape);

// What a row of the shape with noise needs as `memory`, in bytes.
template <typename T>
std::int64_t row_memory(const Shape<T>& shape);

// The pixels of `row` inside the shape, from left to right, none next to another. Returns how many runs there are.
template <typename T>
std::int64_t row_runs(const Shape<T>& shape, std::int64_t row, void* memory, Run* runs);

}  // namespace twostage
