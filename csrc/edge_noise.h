// The noise that moves the edges of polygons: smooth, on a lattice, in integers alone (reference/edge_noise.py), so
// that processors and GPUs find the same pixels inside.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define TWOSTAGE_ANYWHERE __host__ __device__ __forceinline__
#else
#define TWOSTAGE_ANYWHERE inline
#endif

namespace twostage {

constexpr int kSubpixels = 256;

namespace noise {

constexpr std::uint32_t kFieldStep = 0x9e3779b9u, kXStep = 0x85ebca77u, kYStep = 0xc2b2ae3du;

// "lowbias32" of C. Wellons' hash prospector.
TWOSTAGE_ANYWHERE std::uint32_t mix(std::uint32_t word) {
    word = (word ^ (word >> 16)) * 0x7feb352du;
    word = (word ^ (word >> 15)) * 0x846ca68bu;
    return word ^ (word >> 16);
}

// 3 t^2 - 2 t^3 of the place within the cell, in 1/1024.
TWOSTAGE_ANYWHERE std::int32_t smooth(std::uint32_t position) {
    const std::uint32_t t = (position & 0xffffu) >> 6;
    return static_cast<std::int32_t>((t * t * (3072 - 2 * t)) >> 20);
}

// From one value to the other, by 1/1024 parts.
TWOSTAGE_ANYWHERE std::int32_t between(std::int32_t from, std::int32_t to, std::int32_t part) {
    return from + (((to - from) * part) >> 10);
}

// On a column of the lattice, `down` below its row.
TWOSTAGE_ANYWHERE std::int32_t on_column(std::uint32_t seed, std::uint32_t column, std::uint32_t row,
                                         std::int32_t down) {
    const std::uint32_t word = mix(seed ^ (column * kXStep));
    const std::int32_t upper = static_cast<std::int32_t>(mix(word ^ (row * kYStep)) >> 16) - 32768;
    const std::int32_t lower = static_cast<std::int32_t>(mix(word ^ ((row + 1) * kYStep)) >> 16) - 32768;
    return between(upper, lower, down);
}

}  // namespace noise
}  // namespace twostage
