// What a block leaves for the value, and its sum over threads.
#pragma once

#include "device.h"

namespace twostage {

// Of a block; together they may have all registers of a multiprocessor.
constexpr int kMostThreads = 256;

// Sums over a block: over its windows how far each stays below the highest score, times its coverage; over its pixels
// the absolute difference, times the mask, where the value has that term.
struct BlockSums {
    double deficit, difference;
};

// Adds up the threads' sums, always in the same order; the first thread has the result.
TWOSTAGE_DEVICE BlockSums sum_block(BlockSums own, BlockSums* shared /* [blockDim.x] */) {
    const int thread = static_cast<int>(threadIdx.x);
    shared[thread] = own;
    __syncthreads();
    for (int stride = kMostThreads / 2; stride > 0; stride /= 2) {
        if (thread < stride && thread + stride < static_cast<int>(blockDim.x)) {
            shared[thread].deficit += shared[thread + stride].deficit;
            shared[thread].difference += shared[thread + stride].difference;
        }
        __syncthreads();
    }
    return shared[0];
}

}  // namespace twostage
