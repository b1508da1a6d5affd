#include "strips.cuh"

namespace twostage {

template StripShape strip_shape<float>(StripKind);
template void launch_strips<float>(StripKind, const StripProblem<float>&, dim3, int, int, cudaStream_t);

}  // namespace twostage
