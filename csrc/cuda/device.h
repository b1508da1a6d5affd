// What the kernels take from CUDA beside its keywords: launches that are checked, dynamic shared memory, loads that
// convert. Compiled as plain C++, with the headers of tests/cuda_on_cpu before CUDA's, the same source runs on a CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../similarity.h"

#define TWOSTAGE_DEVICE __device__ __forceinline__

namespace twostage {

inline void check_cuda(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // an error that is not sticky must not be found by the next call
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                             ")");
}

template <typename... Parameters>
void launch(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, const Parameters&... arguments) {
    // A block gets 48 KiB without asking, less what the kernel declares.
    constexpr std::size_t kWithoutAsking = 40 * 1024;
    if (shared_bytes > kWithoutAsking)
        check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
                   what);
#if defined(__CUDACC__)
    kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
#else
    cuda_on_cpu::launch(kernel, grid, block, shared_bytes, stream, arguments...);
#endif
    check_cuda(cudaGetLastError(), what);
}

// The block's dynamic shared memory, aligned to 16 bytes.
TWOSTAGE_DEVICE unsigned char* dynamic_shared_memory() {
#if defined(__CUDACC__)
    extern __shared__ __align__(16) unsigned char memory[];
    return memory;
#else
    return cuda_on_cpu::dynamic_shared_memory();
#endif
}

TWOSTAGE_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
TWOSTAGE_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }
TWOSTAGE_DEVICE float absolute(float value) { return fabsf(value); }
TWOSTAGE_DEVICE double absolute(double value) { return fabs(value); }
TWOSTAGE_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
TWOSTAGE_DEVICE double larger(double a, double b) { return fmax(a, b); }
// To within 1 or 2 units in the last place in float.
TWOSTAGE_DEVICE float reciprocal(float value) { return __fdividef(1.0f, value); }
TWOSTAGE_DEVICE double reciprocal(double value) { return 1.0 / value; }
TWOSTAGE_DEVICE float inverse_root(float value) { return rsqrtf(value); }
TWOSTAGE_DEVICE double inverse_root(double value) { return 1.0 / sqrt(value); }

TWOSTAGE_DEVICE float float_from_bits(std::uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

TWOSTAGE_DEVICE float half_to_float(std::uint16_t half) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
#else
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffu) << 13;
    // Exponents are rebased by a multiplication with 2^112, which is exact for subnormal numbers too.
    const float scaled = float_from_bits(magnitude) * 0x1p112f;
    std::uint32_t bits;
    memcpy(&bits, &scaled, sizeof bits);
    const bool special = magnitude >= 0x7c00u << 13;  // infinite or NaN
    return float_from_bits(sign | (special ? magnitude | 0x7f800000u : bits));
#endif
}

TWOSTAGE_DEVICE float bfloat16_to_float(std::uint16_t bits) {
    return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
}

TWOSTAGE_DEVICE void load_pixel(const void* image, ImageType type, std::int64_t index, float& to) {
    if (type == ImageType::kFloat32) {
        to = static_cast<const float*>(image)[index];
        return;
    }
    const std::uint16_t bits = static_cast<const std::uint16_t*>(image)[index];
    to = type == ImageType::kFloat16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

TWOSTAGE_DEVICE void load_pixel(const void* image, ImageType, std::int64_t index, double& to) {
    to = static_cast<const double*>(image)[index];
}

}  // namespace twostage
