#include "tile_kernel.h"

namespace twostage {

double run_tile_avx512(const TileProblem<float>& problem, const Tile& tile) { return run_tile(problem, tile); }
double run_tile_avx512(const TileProblem<double>& problem, const Tile& tile) { return run_tile(problem, tile); }

}  // namespace twostage
