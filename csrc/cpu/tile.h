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
    const T* windows;       // [B, window_size]
    double gradient_scale;  // derivative of the reduced value by one pixel of the map; 1 with an upstream gradient
};

// Scores the tile's windows and writes its pixels' gradients. Returns the sum over its windows of
// 1 - score (of alpha + beta + gamma - score in the additive form).
template <typename T>
using RunTile = double (*)(const TileProblem<T>& problem, const Tile& tile);

template <typename T>
struct InstructionSet {
    const char* name;
    RunTile<T> run_tile;
};

double run_tile_plain(const TileProblem<float>& problem, const Tile& tile);
double run_tile_plain(const TileProblem<double>& problem, const Tile& tile);
#if defined(__x86_64__)
double run_tile_avx2(const TileProblem<float>& problem, const Tile& tile);
double run_tile_avx2(const TileProblem<double>& problem, const Tile& tile);
double run_tile_avx512(const TileProblem<float>& problem, const Tile& tile);
double run_tile_avx512(const TileProblem<double>& problem, const Tile& tile);
#endif

// Memory of the calling thread, aligned to 64 bytes, kept until it ends or asks for more. Contents are undefined.
void* thread_scratch(std::int64_t bytes);

}  // namespace twostage
