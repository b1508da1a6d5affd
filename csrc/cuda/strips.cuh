// Picks the strip kernel for a kind of problem. Included by one translation unit for each precision.
#pragma once

#include "strip_kernel.cuh"
#include "strips.h"

namespace twostage {

template <typename T, int kColumnsOfIt, bool kAdditive, bool kGradient, bool kMasked>
struct StripKernel {
    static constexpr int kColumns = kColumnsOfIt;
    static constexpr bool kHasGradient = kGradient;
    static std::size_t bytes(int threads) { return StripMemory<T, kColumns, kGradient, kMasked>::bytes(threads); }
    static constexpr auto run = score_strips<T, kColumns, kAdditive, kGradient, kMasked>;
};

// Two columns a thread halve what is read from shared memory; one where the registers would not hold two.
template <typename T, typename With>
auto with_kernel(StripKind kind, With&& with) {
    constexpr int kColumns = sizeof(T) == 4 ? 2 : 1;
    if (kind.masked && kind.additive)
        return kind.gradient ? with(StripKernel<T, 1, true, true, true>{})
                             : with(StripKernel<T, 1, true, false, true>{});
    if (kind.masked)
        return kind.gradient ? with(StripKernel<T, 1, false, true, true>{})
                             : with(StripKernel<T, 1, false, false, true>{});
    if (kind.additive)
        return kind.gradient ? with(StripKernel<T, kColumns, true, true, false>{})
                             : with(StripKernel<T, kColumns, true, false, false>{});
    return kind.gradient ? with(StripKernel<T, kColumns, false, true, false>{})
                         : with(StripKernel<T, kColumns, false, false, false>{});
}

template <typename T>
StripShape strip_shape(StripKind kind) {
    return with_kernel<T>(kind,
                          [](auto kernel) { return StripShape{kernel.kColumns, kernel.kHasGradient, kernel.bytes}; });
}

template <typename T>
void launch_strips(StripKind kind, const StripProblem<T>& problem, dim3 grid, int threads, int window_half,
                   cudaStream_t stream) {
    with_kernel<T>(kind, [&](auto kernel) {
        launch("similarity", kernel.run, grid, dim3(static_cast<unsigned>(threads)), kernel.bytes(threads), stream,
               problem, window_half);
    });
}

}  // namespace twostage
