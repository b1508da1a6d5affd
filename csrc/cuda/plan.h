// How a launch cuts the images: wide enough strips and long enough segments that little is read twice, and enough of
// them that every multiprocessor has work.
#pragma once

#include <cstdint>

#include "strips.h"

namespace twostage {

struct Device {
    int multiprocessors;
    int shared_bytes;         // that a block may have
    int shared_bytes_in_all;  // of a multiprocessor
};

struct StripPlan {
    int threads, strips, segments;
};

namespace plan {

constexpr int kFewestRows = 16, kFewestColumns = 16;
constexpr int kWarp = 32;

inline int rounded_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Threads for the widest of `strips` strips.
inline int threads_for(int width, int lead, int strips, const StripShape& shape) {
    int widest = 0;
    for (int strip = 0; strip < strips; ++strip) {
        const StripColumns c = strip_columns(width, lead, strips, strip, shape.gradient, shape.columns_per_thread);
        const int windows = c.window_end - c.base, pixels = shape.gradient ? c.pixel_end - c.pixel_begin : 0;
        widest = widest > windows ? widest : windows;
        widest = widest > pixels ? widest : pixels;
    }
    return rounded_up((widest + shape.columns_per_thread - 1) / shape.columns_per_thread, kWarp);
}

// Relative time of a launch: rows times warps that the busiest multiprocessor has to work through, over the share of
// its instruction slots that so many warps at once can fill.
inline double cost(const StripPlan& p, int height, std::int64_t planes, const StripShape& shape, const Device& device) {
    const std::int64_t blocks = planes * p.strips * p.segments;
    const double in_turn = static_cast<double>((blocks + device.multiprocessors - 1) / device.multiprocessors);
    double at_once = kMostThreads / p.threads;
    const double fit = static_cast<double>(device.shared_bytes_in_all) / static_cast<double>(shape.bytes(p.threads));
    if (fit < at_once) at_once = fit < 1 ? 1 : static_cast<int>(fit);
    if (in_turn < at_once) at_once = in_turn;
    // A segment reads rows above and below itself; where there is one only, these rows do not exist.
    const int halo = shape.gradient ? (p.segments > 1 ? 3 * kHalf : kHalf) : 2 * kHalf;
    const double rows = static_cast<double>(height) / p.segments + halo;
    const double warps = at_once * p.threads / kWarp;
    return in_turn * (p.threads / kWarp) * rows * (warps + 3) / warps;
}

}  // namespace plan

// `planes` counts a plane twice where both gradients are wanted.
inline StripPlan choose_plan(int height, int width, int lead, std::int64_t planes, const StripShape& shape,
                             const Device& device) {
    StripPlan best{0, 0, 0};
    double best_cost = 0;
    const int most_strips = width / plan::kFewestColumns > 1 ? width / plan::kFewestColumns : 1;
    const int most_segments = height / plan::kFewestRows > 1 ? height / plan::kFewestRows : 1;
    int fitting = 0;
    for (int strips = (width - 1) / (shape.columns_per_thread * kMostThreads) + 1;
         strips <= most_strips && fitting < 12; ++strips) {
        const int threads = plan::threads_for(width, lead, strips, shape);
        if (threads > kMostThreads || shape.bytes(threads) > static_cast<std::size_t>(device.shared_bytes)) continue;
        ++fitting;
        for (int segments = 1; segments <= most_segments; ++segments) {
            const StripPlan candidate{threads, strips, segments};
            const double candidate_cost = plan::cost(candidate, height, planes, shape, device);
            if (best.threads == 0 || candidate_cost < 0.999 * best_cost) {
                best = candidate;
                best_cost = candidate_cost;
            }
            if (planes * strips * segments > 32 * static_cast<std::int64_t>(device.multiprocessors)) break;
        }
        if (threads == plan::kWarp) break;
    }
    return best;
}

}  // namespace twostage
