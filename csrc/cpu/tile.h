// A rectangle of one image plane: the unit of work, small enough for its rows to stay in cache.
#pragma once

#include <cstdint>

#include "../similarity.h"

namespace twostage {

struct Tile {
    std::int64_t plane;                                         // sample * channels + channel
    std::int64_t row_begin, row_end, column_begin, column_end;  // of the image
};

// What every tile of a call shares.
template <typename T>
struct TileProblem {
    SimilarityParams params;
    SimilarityBuffers<T> buffers;
    std::int64_t map_height, map_width;
    const T* windows;  // [B, window_size]
    // Derivatives of the reduced value by one window's score and by one pixel's absolute difference; with a mask, each
    // divided by the sample's MaskScale. The first is 1 with an upstream gradient, the second 0 where no value has it.
    double window_factor, pixel_factor;
};

// Sums over a tile: over its windows how far each stays below the highest score, times its coverage; over its pixels
// the absolute difference, times the mask, where the value has that term.
struct TileSums {
    double deficit = 0, difference = 0;
};

// Scores the tile's windows and writes its pixels' gradients.
template <typename T>
using RunTile = TileSums (*)(const TileProblem<T>& problem, const Tile& tile);

TileSums run_tile_plain(const TileProblem<float>& problem, const Tile& tile);
TileSums run_tile_plain(const TileProblem<double>& problem, const Tile& tile);
#if defined(__x86_64__)
TileSums run_tile_avx2(const TileProblem<float>& problem, const Tile& tile);
TileSums run_tile_avx2(const TileProblem<double>& problem, const Tile& tile);
TileSums run_tile_avx512(const TileProblem<float>& problem, const Tile& tile);
TileSums run_tile_avx512(const TileProblem<double>& problem, const Tile& tile);
#endif

// Memory of the calling thread, aligned to 64 bytes, kept until it ends or asks for more. Contents are undefined.
void* thread_scratch(std::int64_t bytes);

}  // namespace twostage
