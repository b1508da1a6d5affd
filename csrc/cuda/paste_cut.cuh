// One polygon's cut-out as a tile sees it: which pixels are inside, sampled, blurred.
#pragma once

#include "paste_find.cuh"
#include "paste_source.cuh"

namespace twostage {

// What the block's threads share of the polygon they are at.
template <typename T>
struct Cut {
    Outline<T> outline;
    Source<T> source;
    SourceChange<T> change;
    PixelBox box;                 // its pixels that the tile or the blur of one of the tile's pixels sees
    int first_row, first_column;  // the tile's first pixel less the radius: where positions are counted from
    int radius;
    T sigma, level;
    BlendMode mode;

    // Warps share the work, so that they wait for the device's memory at once. All threads must come here, and meet
    // before they look at it.
    TWOSTAGE_DEVICE void set(const PasteProblem<T>& problem, std::int64_t polygon, const Tile& tile) {
        const PastePolygons<T>& p = problem.polygons;
        const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
        const T* const points = p.vertices + polygon * 2 * kMaxVertices;
        if (warp > 3 || (lane != 0 && (warp != 0 || lane > kMaxVertices))) return;
        const int count = static_cast<int>(p.vertex_count[polygon]), reach = blur_radius(p.blur_sigma[polygon]);
        const int row = tile.row_begin - reach, column = tile.column_begin - reach;
        if (warp == 0) {
            const int from = lane < count ? lane : 0;
            outline.x[lane] = points[2 * from];
            outline.y[lane] = points[2 * from + 1];
        } else if (warp == 1) {
            source.set(problem, polygon, tile, column, row, change);
        } else if (warp == 2) {
            const T margin = p.edge_amplitude == nullptr ? T(0) : p.edge_amplitude[polygon];
            const PixelBox whole = pixel_box(points, count, margin, problem.images);
            box = {max(whole.row_begin, row), min(whole.row_end, tile.row_end + reach), max(whole.column_begin, column),
                   min(whole.column_end, tile.column_end + reach)};
        } else {
            outline.vertices = count;
            outline.noise = edge_noise(p, polygon);
            radius = reach;
            first_row = row;
            first_column = column;
            sigma = p.blur_sigma[polygon];
            level = p.strength == nullptr ? T(1) : p.strength[polygon];
            mode = p.blend_mode == nullptr ? BlendMode::kNormal : static_cast<BlendMode>(p.blend_mode[polygon]);
        }
    }
};

// Ones in the lowest `count` bits.
TWOSTAGE_DEVICE unsigned lowest_bits(int count) { return count >= 32 ? ~0u : (1u << max(count, 0)) - 1; }

// Bit b of bits[row * words + word] says whether the pixel in column `column` + 32 word + b and row `first` + row is
// inside the polygon and its box. Returns whether this thread found one that is. All threads must come here.
template <typename T>
TWOSTAGE_DEVICE unsigned find_inside(const Cut<T>& cut, int first, int rows, int column, int words, unsigned* bits) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const PixelBox box = cut.box;
    unsigned any = 0;
    if (cut.outline.noise.reach > 0) {
#pragma unroll 1
        for (int item = thread / 32; item < rows * words; item += kPasteWarps) {
            const int row = first + item / words, own = column + item % words * 32 + lane;
            const bool here = row >= box.row_begin && row < box.row_end && own >= box.column_begin &&
                              own < box.column_end && inside_with_noise(cut.outline, row, own);
            const unsigned word = __ballot_sync(0xffffffffu, here);
            if (lane == 0) bits[item] = word;
            any |= word;
        }
        return any;
    }
    // Eight lanes for each row, one for each edge: a pixel left of an odd number of crossings is inside.
    constexpr int kEdges = 8, kRowsAtOnce = kPasteThreads / kEdges;
    const int edge = lane % kEdges, lead = box.column_begin - column;
#pragma unroll 1
    for (int begin = 0; begin < rows; begin += kRowsAtOnce) {
        const int row = begin + thread / kEdges;
        const bool there = row < rows && edge < cut.outline.vertices;
        const int left = there ? columns_left_of(edge_of(cut.outline, there ? edge : 0), first + row, box.column_begin,
                                                 box.column_end)
                               : 0;
#pragma unroll 1
        for (int word = 0; word < words; ++word) {
            const int at = lead - 32 * word;
            unsigned mask = lowest_bits(at + left) ^ lowest_bits(at);
            for (int step = kEdges / 2; step > 0; step /= 2) mask ^= __shfl_xor_sync(0xffffffffu, mask, step);
            if (edge == 0 && row < rows) bits[row * words + word] = mask;
            any |= mask;
        }
    }
    return any;
}

// The first warp's: weights of the taps -radius..radius behind kLead zeros, and zeros up to the next multiple of 4.
template <typename T>
TWOSTAGE_DEVICE void fill_window(T sigma, int radius, T* window) {
    const int lane = static_cast<int>(threadIdx.x) % 32, taps = 2 * radius + 1;
    T sum = 0;
#pragma unroll 1
    for (int tap = lane; tap < taps; tap += 32) {
        const T distance = static_cast<T>(tap - radius);
        const T weight = exp(T(-0.5) * (distance * distance) / (sigma * sigma));
        window[PasteMemory<T>::kLead + tap] = weight;
        sum += weight;
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
#pragma unroll 1
    for (int tap = lane; tap < taps; tap += 32) window[PasteMemory<T>::kLead + tap] /= sum;
    if (lane < PasteMemory<T>::kLead) window[lane] = 0;
    if (lane < 8) window[PasteMemory<T>::kLead + taps + lane] = 0;
}

}  // namespace twostage
