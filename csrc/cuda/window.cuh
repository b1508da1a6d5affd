// The weights of a sample's window, from its sigma on the device.
#pragma once

#include "filters.cuh"

namespace twostage {

// Weights of the sample's Gaussian. Those too small to change a sum are 0.
template <typename T>
TWOSTAGE_DEVICE Window<T> gaussian_window(T sigma, int half, double* shared /* [kHalf + 1] */) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread <= kHalf) {
        const double distance = thread / static_cast<double>(sigma);
        shared[thread] = thread <= half ? exp(-0.5 * distance * distance) : 0.0;
    }
    __syncthreads();
    double sum = shared[0];
    for (int k = 1; k <= kHalf; ++k) sum += 2 * shared[k];
    Window<T> window;
#pragma unroll
    for (int k = 0; k <= kHalf; ++k) {
        const double weight = shared[k] / sum;
        window.at[k] = weight < 1e-30 ? T(0) : static_cast<T>(weight);
    }
    return window;
}

}  // namespace twostage
