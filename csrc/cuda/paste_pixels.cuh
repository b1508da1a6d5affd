// Pixels of every type, one at a time, into the precision of the sums and back.
#pragma once

#include "../paste.h"
#include "device.h"

namespace twostage {

// Types of pixels as they are stored, as arguments that say which overload is meant.
struct ByteType {
    using Stored = unsigned char;
};
struct HalfType {
    using Stored = unsigned short;
};
struct BfloatType {
    using Stored = unsigned short;
};
struct FloatType {
    using Stored = float;
};
struct DoubleType {
    using Stored = double;
};

template <typename T>
TWOSTAGE_DEVICE T number(unsigned char pixel, ByteType) {
    return static_cast<T>(pixel);
}
template <typename T>
TWOSTAGE_DEVICE T number(unsigned short pixel, HalfType) {
    return static_cast<T>(half_to_float(pixel));
}
template <typename T>
TWOSTAGE_DEVICE T number(unsigned short pixel, BfloatType) {
    return static_cast<T>(bfloat16_to_float(pixel));
}
template <typename T>
TWOSTAGE_DEVICE T number(float pixel, FloatType) {
    return pixel;
}
template <typename T>
TWOSTAGE_DEVICE T number(double pixel, DoubleType) {
    return static_cast<T>(pixel);
}

TWOSTAGE_DEVICE std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

TWOSTAGE_DEVICE unsigned short half_from_float(float value) {
#if defined(__CUDA_ARCH__)
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    const std::uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    std::uint32_t half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    if (magnitude > 0x7f800000u)
        half = 0x7fffu;
    else if (magnitude >= 0x477ff000u)  // 65520 and more round to infinity
        half = 0x7c00u;
    else if (magnitude < 0x38800000u)  // below 2^-14 the sum has the unit of the subnormal numbers in its last place
        half = bits_of(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    return static_cast<unsigned short>(sign | half);
#endif
}

// To the nearest, to the even one of two.
TWOSTAGE_DEVICE unsigned char pixel_of(float value, ByteType) {
    return static_cast<unsigned char>(rintf(fminf(fmaxf(value, 0.0f), 255.0f)));  // NaN becomes 0
}
TWOSTAGE_DEVICE unsigned short pixel_of(float value, HalfType) { return half_from_float(value); }
TWOSTAGE_DEVICE unsigned short pixel_of(float value, BfloatType) {
    const std::uint32_t bits = bits_of(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<unsigned short>(nan ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
TWOSTAGE_DEVICE float pixel_of(float value, FloatType) { return value; }
TWOSTAGE_DEVICE double pixel_of(double value, DoubleType) { return value; }

// body(type) for images that are summed in T.
template <typename T, typename Body>
TWOSTAGE_DEVICE void with_image_type(PixelType type, Body&& body) {
    if constexpr (sizeof(T) == 8) {
        body(DoubleType{});
    } else {
        if (type == PixelType::kFloat32)
            body(FloatType{});
        else if (type == PixelType::kFloat16)
            body(HalfType{});
        else if (type == PixelType::kBfloat16)
            body(BfloatType{});
        else
            body(ByteType{});
    }
}

// And for their sources.
template <typename T, typename Body>
TWOSTAGE_DEVICE void with_source_type(PixelType type, Body&& body) {
    if (type == PixelType::kUint8)
        body(ByteType{});
    else
        with_image_type<T>(type, body);
}

}  // namespace twostage
