// Ranges of rows or columns.
#pragma once

#include <cstdint>

#include "simd.h"

namespace twostage {
namespace {

TWOSTAGE_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
TWOSTAGE_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

struct Range {
    std::int64_t begin, end;
};

TWOSTAGE_INLINE Range overlap(Range a, Range b) { return {larger(a.begin, b.begin), smaller(a.end, b.end)}; }

}  // namespace
}  // namespace twostage
