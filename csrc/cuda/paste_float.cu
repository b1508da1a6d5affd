#include "paste_kernel.cuh"

namespace twostage {

template void launch_paste<float>(const PasteProblem<float>&, std::int64_t, void*);

}  // namespace twostage
