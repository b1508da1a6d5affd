#include "tile_kernel.h"

namespace twostage {

TileSums run_tile_avx512(const TileProblem<float>& problem, const Tile& tile) { return run_tile(problem, tile); }
TileSums run_tile_avx512(const TileProblem<double>& problem, const Tile& tile) { return run_tile(problem, tile); }

}  // namespace twostage
