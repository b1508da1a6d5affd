#include "strips.cuh"

namespace twostage {

template StripShape strip_shape<double>(StripKind);
template void launch_strips<double>(StripKind, const StripProblem<double>&, dim3, int, int, cudaStream_t);

}  // namespace twostage
