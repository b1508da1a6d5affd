// Pixels of any type into the precision of the sums.
#pragma once

#include <cstdint>
#include <cstring>

#include "../similarity.h"
#include "simd.h"

namespace twostage {
namespace {

TWOSTAGE_INLINE float float_from_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

TWOSTAGE_INLINE float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffu) << 13;
    // Exponents are rebased by a multiplication with 2^112, which is exact for subnormal numbers too.
    const float value = float_from_bits(magnitude) * 0x1p112f;
    const bool special = magnitude >= 0x7c00u << 13;  // infinite or NaN
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return float_from_bits(sign | (special ? magnitude | 0x7f800000u : bits));
}

TWOSTAGE_INLINE std::int64_t pixel_bytes(ImageType type) {
    return type == ImageType::kFloat64 ? 8 : type == ImageType::kFloat32 ? 4 : 2;
}

template <typename T>
void convert_pixels(const void* from, ImageType type, std::int64_t count, T* to) {
    if constexpr (sizeof(T) == 8) {
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
    } else {
        const auto* halves = static_cast<const std::uint16_t*>(from);
        if (type == ImageType::kFloat32)
            std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
        else if (type == ImageType::kBfloat16)
            for (std::int64_t i = 0; i < count; ++i)
                to[i] = float_from_bits(static_cast<std::uint32_t>(halves[i]) << 16);
        else
            for (std::int64_t i = 0; i < count; ++i) to[i] = half_to_float(halves[i]);
    }
}

}  // namespace
}  // namespace twostage
