#include "paste_kernel.cuh"

namespace twostage {

template void launch_paste<double>(const PasteProblem<double>&, std::int64_t, void*);

}  // namespace twostage
