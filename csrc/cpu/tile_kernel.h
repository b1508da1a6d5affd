// One tile, streamed from top to bottom: each row of pixels is read once, each row of gradients written once, and what
// lies between is held in rings of a few dozen rows.
//
// Rows and columns are the image's; a window is named by its centre pixel. u counts columns from the first window's
// centre. Where whole windows only are scored, no centre lies nearer to the image's border than half a window.
#pragma once

#include "convert.h"
#include "filters.h"
#include "simd.h"
#include "tile.h"

namespace twostage {
namespace {

TWOSTAGE_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
TWOSTAGE_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

struct Range {
    std::int64_t begin, end;
};

TWOSTAGE_INLINE Range overlap(Range a, Range b) { return {larger(a.begin, b.begin), smaller(a.end, b.end)}; }

// Records of the latest rows.
template <typename T>
struct Ring {
    T* base;
    std::int64_t first_row, slots, record;
    TWOSTAGE_INLINE T* row(std::int64_t row) const { return base + ((row - first_row) % slots) * record; }
};

// kGradients: 0, 1 (of x alone) or 2. kTaps as in filters.h.
template <typename T, int kTaps, bool kAdditive, int kGradients>
class TileRun {
  public:
    TileRun(const TileProblem<T>& problem, const Tile& tile)
        : problem_(problem), tile_(tile), half_(problem.params.window_size / 2) {
        const SimilarityParams& p = problem.params;
        const std::int64_t lead = p.same_padding ? 0 : half_, reach = kGradients ? half_ : 0;
        const Range row_centres{lead, p.height - lead}, column_centres{lead, p.width - lead};
        owned_rows_ = overlap(row_centres, {tile.row_begin, tile.row_end});
        rows_ = overlap(row_centres, {tile.row_begin - reach, tile.row_end + reach});
        const Range columns = overlap(column_centres, {tile.column_begin - reach, tile.column_end + reach});
        origin_ = columns.begin;
        count_ = columns.end - columns.begin;
        const Range owned = overlap(column_centres, {tile.column_begin, tile.column_end});
        owned_ = {owned.begin - origin_, owned.end - origin_};
        lead_ = lead;

        const std::int64_t sample = tile.plane / p.channels;
        window_ = problem.windows + sample * p.window_size;
        small_sigma_ = static_cast<double>(problem.buffers.sigma[sample]) < kSmallSigma;
        const double scale = problem.gradient_scale;
        constants_ = {T(p.alpha),
                      T(p.beta),
                      T(p.gamma),
                      T(p.c1),
                      T(p.c2),
                      T(p.c2 / 2),
                      T(p.noise),
                      T(2 * (kAdditive ? p.alpha : 1) * scale),
                      T(2 * p.beta * scale),
                      T(kAdditive ? p.gamma * scale : 2 * scale)};
        swapped_ = kGradients == 1 && problem.buffers.prediction_gradient == nullptr;
    }

    double run() {
        if (rows_.begin >= rows_.end || count_ <= 0) return 0;
        lay_out_scratch();
        next_row_ = rows_.begin - half_;
        next_window_ = rows_.begin;
        if constexpr (kGradients == 0) {
            while (next_window_ < rows_.end) score_rows();
        } else {
            for (std::int64_t row = tile_.row_begin; row < tile_.row_end; row += kRowGroup) {
                while (next_window_ < smaller(row + kRowGroup + half_, rows_.end)) score_rows();
                write_gradients(row);
            }
        }
        return deficit_;
    }

  private:
    static constexpr int kLane = kLanes<T>;
    static constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));  // values of a cache line
    static constexpr int kFields = kGradients == 2 ? 5 : 3;

    void lay_out_scratch() {
        const std::int64_t taps = 2 * half_ + 1;
        padded_ = (count_ + kLane - 1) / kLane * kLane;
        margin_ = (2 * half_ + kLine - 1) / kLine * kLine;
        stride_ = odd_lines(margin_ + padded_ + 2 * half_ + 2 * kLane);
        width_ = tile_.column_end - tile_.column_begin;
        gradient_stride_ = odd_lines(width_ + kLane);
        const std::int64_t image_slots = kGradients ? 3 * half_ + 3 * kRowGroup : taps + kRowGroup - 1;
        const std::int64_t slots = kGradients ? 2 * half_ + 2 * kRowGroup : 0;
        const std::int64_t image_values = image_slots * kRowFields * stride_;
        const std::int64_t derivative_values =
            kGradients ? kFields * (kRowGroup * stride_ + (slots + 2) * gradient_stride_) : 0;
        const std::int64_t bytes = (image_values + derivative_values) * static_cast<std::int64_t>(sizeof(T));
        auto* memory = static_cast<char*>(
            thread_scratch(bytes + (taps + kRowGroup) * static_cast<std::int64_t>(sizeof(DerivativeRow<T>))));
        pointers_ = memory + bytes;
        T* at = reinterpret_cast<T*>(memory);
        images_ = {at + margin_, rows_.begin - half_, image_slots, kRowFields * stride_};
        at += image_values;
        if constexpr (kGradients != 0) {
            // Outside the scored windows derivatives are 0.
            std::memset(at, 0,
                        static_cast<std::size_t>(kFields * (kRowGroup * stride_ + gradient_stride_)) * sizeof(T));
            derivatives_ = at + margin_;
            at += kFields * kRowGroup * stride_;
            zero_row_ = at;
            at += kFields * gradient_stride_;
            unwanted_row_ = at;
            at += kFields * gradient_stride_;
            row_derivatives_ = {at, rows_.begin, slots, kFields * gradient_stride_};
        }
    }

    // An odd number of cache lines: rows below each other then fall into different sets of the cache.
    static std::int64_t odd_lines(std::int64_t values) { return ((values + kLine - 1) / kLine | 1) * kLine; }

    // Pixels of `row` with zeros outside the image, in every column that a vector may touch.
    void read_row(const void* image, std::int64_t row, T* to) const {
        const SimilarityParams& p = problem_.params;
        const std::int64_t begin = -margin_, end = stride_ - margin_;
        Range inside = overlap({-half_, count_ + half_}, {-origin_, p.width - origin_});
        if (row < 0 || row >= p.height) inside = {begin, begin};
        std::memset(to + begin, 0, static_cast<std::size_t>(inside.begin - begin) * sizeof(T));
        const std::int64_t first = (tile_.plane * p.height + row) * p.width + origin_ + inside.begin;
        if (inside.end > inside.begin)
            convert_pixels(static_cast<const char*>(image) + first * pixel_bytes(problem_.buffers.type),
                           problem_.buffers.type, inside.end - inside.begin, to + inside.begin);
        std::memset(to + inside.end, 0, static_cast<std::size_t>(end - inside.end) * sizeof(T));
    }

    void read_rows_until(std::int64_t end) {
        const SimilarityBuffers<T>& buffers = problem_.buffers;
        for (; next_row_ < end; ++next_row_) {
            T* row = images_.row(next_row_);
            read_row(swapped_ ? buffers.target : buffers.prediction, next_row_, row + kX * stride_);
            read_row(swapped_ ? buffers.prediction : buffers.target, next_row_, row + kY * stride_);
            row_moments<T, kTaps>(row, stride_, window_, 2 * half_ + 1, padded_);
        }
    }

    // Scores the next kRowGroup rows of windows and sums their derivatives along the rows.
    void score_rows() {
        const std::int64_t first = next_window_;
        const int rows = static_cast<int>(smaller(kRowGroup, rows_.end - first)),
                  taps = static_cast<int>(2 * half_ + 1);
        next_window_ += kRowGroup;
        read_rows_until(first + kRowGroup + half_);
        const T** pointers = static_cast<const T**>(pointers_);
        for (std::int64_t row = 0; row < kRowGroup + 2 * half_; ++row) pointers[row] = images_.row(first - half_ + row);
        const T* centre = images_.row(first + kRowGroup / 2);
        const Constants<T> constants = constants_;
        Vector<T> sum{};
        for (std::int64_t u = 0; u < padded_; u += kLane) {
            Moments<T> moments[kRowGroup];
            if (small_sigma_)
                own_column_moments<T, kTaps>(pointers, stride_, window_, taps, u, moments);
            else
                column_moments<T, kTaps>(pointers, centre, stride_, window_, taps, u, moments);
            for (int row = 0; row < rows; ++row)
                sum +=
                    score_vector(constants, first + row, u, moments[row], derivatives_ + row * kFields * stride_ + u);
        }
        for (int lane = 0; lane < kLane; ++lane) deficit_ += static_cast<double>(sum[lane]);
        if constexpr (kGradients != 0)
            for (int row = 0; row < rows; ++row)
                row_derivatives<T, kTaps, kGradients == 2>(derivatives_ + row * kFields * stride_,
                                                           images_.row(first + row), stride_, window_, taps,
                                                           tile_.column_begin - origin_, tile_.column_end - origin_,
                                                           row_derivatives_.row(first + row), gradient_stride_);
    }

    // Returns the deficits of the windows that belong to this tile.
    TWOSTAGE_INLINE Vector<T> score_vector(const Constants<T>& constants, std::int64_t row, std::int64_t u,
                                           const Moments<T>& moments, T* to) const {
        Derivatives<T> derivatives;
        const Vector<T> deficit = kAdditive ? additive_deficit<T>(constants, moments, derivatives)
                                            : product_deficit<T>(constants, moments, derivatives);
        const std::int64_t left = count_ - u;
        if constexpr (kGradients != 0) {
            Vector<T> values[5] = {derivatives.offset_x, derivatives.slope_x, derivatives.cross, derivatives.offset_y,
                                   derivatives.slope_y};
            if (problem_.buffers.upstream != nullptr) {
                const Vector<T> upstream = load_some(problem_.buffers.upstream + map_index(row, u), left);
                for (int field = 0; field < kFields; ++field) values[field] *= upstream;
            }
            for (int field = 0; field < kFields; ++field)
                store(to + field * stride_, left >= kLane ? values[field] : keep_lanes<T>(values[field], 0, left));
        }
        if (problem_.buffers.map != nullptr) {
            const T highest = kAdditive ? constants.alpha + constants.beta + constants.gamma : T(1);
            store_some<T>(problem_.buffers.map + map_index(row, u), highest - deficit, left);
        }
        if (row < owned_rows_.begin || row >= owned_rows_.end) return Vector<T>{};
        if (u >= owned_.begin && u + kLane <= owned_.end) return deficit;
        return keep_lanes<T>(deficit, owned_.begin - u, owned_.end - u);
    }

    std::int64_t map_index(std::int64_t row, std::int64_t u) const {
        return (tile_.plane * problem_.map_height + row - lead_) * problem_.map_width + origin_ - lead_ + u;
    }

    // Writes the gradients of the next kRowGroup rows of pixels, whose windows have all been scored.
    void write_gradients(std::int64_t first) {
        const std::int64_t begin = tile_.column_begin - origin_;
        auto* rows = static_cast<DerivativeRow<T>*>(pointers_);
        for (std::int64_t index = 0; index < kRowGroup + 2 * half_; ++index) {
            const std::int64_t row = first - half_ + index;
            const bool scored = row >= rows_.begin && row < rows_.end;
            rows[index] = {scored ? row_derivatives_.row(row) : zero_row_, images_.row(scored ? row : first) + begin};
        }
        const SimilarityBuffers<T>& buffers = problem_.buffers;
        T* const gradient_x = swapped_ ? buffers.target_gradient : buffers.prediction_gradient;
        const T* pixels[kRowGroup];
        T *to_x[kRowGroup], *to_y[kRowGroup];
        for (int output = 0; output < kRowGroup; ++output) {
            const bool wanted = first + output < tile_.row_end;
            const std::int64_t row = wanted ? first + output : first;
            const std::int64_t at =
                (tile_.plane * problem_.params.height + row) * problem_.params.width + tile_.column_begin;
            pixels[output] = images_.row(row) + begin;
            to_x[output] = wanted ? gradient_x + at : unwanted_row_;
            to_y[output] = kGradients != 2 ? nullptr : wanted ? buffers.target_gradient + at : unwanted_row_;
        }
        column_gradients<T, kTaps, kGradients == 2>(rows, gradient_stride_, pixels, stride_, window_,
                                                    static_cast<int>(2 * half_ + 1), width_, to_x, to_y);
    }

    const TileProblem<T>& problem_;
    const Tile tile_;
    const std::int64_t half_;
    Constants<T> constants_;
    const T* window_;
    bool small_sigma_;
    bool swapped_;  // x is the target: its gradient alone is wanted
    std::int64_t lead_, origin_, count_, padded_, margin_, stride_, width_, gradient_stride_;
    Range rows_, owned_rows_;   // centres of the windows that are scored, and that count here
    Range owned_;               // u of the windows that count here
    Ring<T> images_;            // fields of RowField
    T* derivatives_ = nullptr;  // of kRowGroup rows of windows
    Ring<T> row_derivatives_;   // the same, summed along the rows
    const T* zero_row_ = nullptr;
    T* unwanted_row_ = nullptr;  // takes what lies below the tile
    void* pointers_ = nullptr;   // room for the rows under one filter
    std::int64_t next_row_, next_window_;
    double deficit_ = 0;
};

template <typename T, int kTaps, bool kAdditive>
double run_tile_with(const TileProblem<T>& problem, const Tile& tile) {
    const bool x = problem.buffers.prediction_gradient != nullptr, y = problem.buffers.target_gradient != nullptr;
    if (x && y) return TileRun<T, kTaps, kAdditive, 2>(problem, tile).run();
    if (x || y) return TileRun<T, kTaps, kAdditive, 1>(problem, tile).run();
    return TileRun<T, kTaps, kAdditive, 0>(problem, tile).run();
}

template <typename T>
double run_tile(const TileProblem<T>& problem, const Tile& tile) {
    const bool usual = problem.params.window_size == 11;
    if (problem.params.additive)
        return usual ? run_tile_with<T, 11, true>(problem, tile) : run_tile_with<T, 0, true>(problem, tile);
    return usual ? run_tile_with<T, 11, false>(problem, tile) : run_tile_with<T, 0, false>(problem, tile);
}

}  // namespace
}  // namespace twostage
