// Pixels of every type, one at a time, into the precision of the sums and back.
#pragma once

#include <cstdint>
#include <cstring>

#include "convert.h"

namespace twostage {
namespace {

struct Half {
    std::uint16_t bits;
};
struct Bfloat {
    std::uint16_t bits;
};

TWOSTAGE_INLINE float number(float pixel) { return pixel; }
TWOSTAGE_INLINE double number(double pixel) { return pixel; }
TWOSTAGE_INLINE float number(std::uint8_t pixel) { return static_cast<float>(pixel); }
TWOSTAGE_INLINE float number(Half pixel) { return half_to_float(pixel.bits); }
TWOSTAGE_INLINE float number(Bfloat pixel) { return float_from_bits(static_cast<std::uint32_t>(pixel.bits) << 16); }

TWOSTAGE_INLINE std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// To the nearest, to the even one of two.
TWOSTAGE_INLINE void put(float value, float& pixel) { pixel = value; }
TWOSTAGE_INLINE void put(double value, double& pixel) { pixel = value; }
TWOSTAGE_INLINE void put(float value, std::uint8_t& pixel) {
    const float clamped = value > 0 ? value < 255 ? value : 255 : 0;  // NaN becomes 0
    // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the last bits.
    pixel = static_cast<std::uint8_t>(bits_of(clamped + 0x1.8p23f));
}
TWOSTAGE_INLINE void put(float value, Bfloat& pixel) {
    const std::uint32_t bits = bits_of(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    pixel.bits = static_cast<std::uint16_t>(nan ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
TWOSTAGE_INLINE void put(float value, Half& pixel) {
    const std::uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // 65520 and more round to infinity
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {
        // Below 2^-14 the sum has the unit 2^-24 of the subnormal numbers in its last place.
        half = bits_of(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    pixel.bits = static_cast<std::uint16_t>(sign | half);
}

}  // namespace
}  // namespace twostage
