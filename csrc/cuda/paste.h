// paste_defects on a CUDA device: what the caller sees beside csrc/paste.h.
#pragma once

#include "../paste.h"

namespace twostage {

// Rows and columns of a target, which the size of a grid limits. The displaced centres of pixels have 31 bits.
constexpr std::int64_t kLongestCudaTarget = 65535 * 32, kMostCudaChannels = 65536;
// Rows and columns of a source image, and bytes between two rows or columns of it. A polygon whose source image in a
// layout has more rows or columns, or rows of more bytes, is left out.
constexpr std::int64_t kLongestCudaSource = std::int64_t(1) << 27, kLongestCudaStep = (std::int64_t(1) << 31) - 1;

// As csrc/paste.h says, in one launch; polygons that cannot be pasted are left out. All buffers lie on `device` and
// must live until the work queued on `stream` (a cudaStream_t) is done; strides may be any whose elements are apart.
// Returns at once; `device` is the calling thread's then. The same device and inputs give the same bits.
// Where content is not finite, up to three more pixels around its blur's reach may become so too.
// Throws std::runtime_error, in CUDA's words where the launch fails.
template <typename T>
void paste_defects_cuda(const PasteImages& images, const PastePolygons<T>& polygons, T* opacity, int device,
                        void* stream);

}  // namespace twostage
