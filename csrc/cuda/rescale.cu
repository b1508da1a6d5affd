// Gradients that were computed for an upstream derivative of 1, brought to another.
#include "device.h"
#include "similarity.h"

namespace twostage {

namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kValuesPerThread = 16, kMostRows = 65535;

// A row of blocks for each factor; rows beyond the grid's take turns.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    rescale_values(T* values, const T* factors, std::int64_t rows, std::int64_t count) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * kThreads;
    for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const T factor = factors[row];
        if (factor == T(1)) continue;
        T* of_row = values + row * count;
#pragma unroll 4
        for (std::int64_t i = first; i < count; i += threads) of_row[i] *= factor;
    }
}

}  // namespace

template <typename T>
void rescale_cuda(T* values, const T* factor, std::int64_t samples, std::int64_t count, std::int64_t factors,
                  int device, void* stream) {
    if (samples == 0 || count == 0) return;
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    const std::int64_t rows = factors == 1 ? 1 : samples, of_row = factors == 1 ? samples * count : count;
    constexpr std::int64_t kMostBlocks = 4096;
    const std::int64_t wanted = (of_row + kThreads * kValuesPerThread - 1) / (kThreads * kValuesPerThread);
    const dim3 grid(static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks),
                    static_cast<unsigned>(rows < kMostRows ? rows : kMostRows));
    launch("rescale", rescale_values<T>, grid, dim3(kThreads), 0, static_cast<cudaStream_t>(stream), values, factor,
           rows, of_row);
}

template void rescale_cuda<float>(float*, const float*, std::int64_t, std::int64_t, std::int64_t, int, void*);
template void rescale_cuda<double>(double*, const double*, std::int64_t, std::int64_t, std::int64_t, int, void*);

}  // namespace twostage
