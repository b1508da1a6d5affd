// The compiled strip kernels, one translation unit for each precision.
#pragma once

#include "strip.h"

namespace twostage {

struct StripKind {
    bool additive, gradient, masked;
};

// What the choice of a cut needs to know of a kernel.
struct StripShape {
    int columns_per_thread;
    bool gradient;
    std::size_t (*bytes)(int threads);  // of dynamic shared memory
};

template <typename T>
StripShape strip_shape(StripKind kind);

template <typename T>
void launch_strips(StripKind kind, const StripProblem<T>& problem, dim3 grid, int threads, int window_half,
                   cudaStream_t stream);

}  // namespace twostage
