// Structural similarity and its gradient on a CUDA device: what the caller sees beside csrc/similarity.h.
#pragma once

#include "../similarity.h"

namespace twostage {

// A window of 1 has no variance: its score would be what rounding leaves of it.
constexpr int kSmallestCudaWindow = 3, kLargestCudaWindow = 11;

// Bytes of device memory that a call with these buffers works in. Nothing is launched.
template <typename T>
std::int64_t similarity_cuda_workspace(const SimilarityParams& params, const SimilarityBuffers<T>& buffers, int device);

// Similarity of each pair and its gradients, as csrc/similarity.h says. All buffers and `workspace` lie on `device`;
// they must live until the work queued on `stream` (a cudaStream_t) is done. Returns at once; `device` is the calling
// thread's then. The same device and inputs give the same bits. The two gradients together cost two passes. A window
// has kSmallestCudaWindow to kLargestCudaWindow taps. Throws std::runtime_error, in CUDA's words where a launch fails.
template <typename T>
void similarity_cuda(const SimilarityParams& params, const SimilarityBuffers<T>& buffers, Reduction reduction,
                     int device, void* workspace, void* stream);

// Multiplies each sample's `count` values by its factor, or all by factor[0] where `factors` is 1. Where a factor is 1
// nothing is read or written.
template <typename T>
void rescale_cuda(T* values /* [samples, count] */, const T* factor, std::int64_t samples, std::int64_t count,
                  std::int64_t factors, int device, void* stream);

// Devices that CUDA sees; 0 without a driver.
int cuda_devices();

}  // namespace twostage
