// One tile, streamed from top to bottom: each row of pixels is read once, each row of gradients written once, and what
// lies between is held in rings of a few dozen rows.
//
// Rows and columns are the image's; a window is named by its centre pixel, and u counts columns as in image_rows.h.
// Where whole windows only are scored, no centre lies nearer to the image's border than half a window.
#pragma once

#include "filters.h"
#include "image_rows.h"
#include "ranges.h"
#include "simd.h"
#include "tile.h"

namespace twostage {
namespace {

// kGradients: 0, 1 (of x alone) or 2. kTaps as in filters.h.
template <typename T, int kTaps, bool kAdditive, int kGradients, bool kMasked>
class TileRun {
  public:
    TileRun(const TileProblem<T>& problem, const Tile& tile)
        : problem_(problem),
          tile_(tile),
          half_(problem.params.window_size / 2),
          lead_(problem.params.same_padding ? 0 : half_),
          rows_(centres(problem.params.height, tile.row_begin - reach(), tile.row_end + reach())),
          owned_rows_(centres(problem.params.height, tile.row_begin, tile.row_end)),
          columns_(columns_of<T>(centres(problem.params.width, tile.column_begin - reach(), tile.column_end + reach()),
                                 half_)),
          owned_(from_origin(centres(problem.params.width, tile.column_begin, tile.column_end))),
          pixels_(from_origin({tile.column_begin, tile.column_end})),
          swapped_(kGradients == 1 && problem.buffers.prediction_gradient == nullptr),
          gradient_x_(swapped_ ? problem.buffers.target_gradient : problem.buffers.prediction_gradient),
          gradient_y_(problem.buffers.target_gradient),
          window_(problem.windows + tile.plane / problem.params.channels * problem.params.window_size),
          images_(problem, tile.plane, columns_, window_, half_, swapped_) {
        const SimilarityParams& p = problem.params;
        const std::int64_t sample = tile.plane / p.channels;
        // A window of one pixel has no variance about itself; about another pixel, rounding would leave one.
        small_sigma_ = half_ == 0 || static_cast<double>(problem.buffers.sigma[sample]) < kSmallSigma;
        double scale = problem.window_factor;
        pixel_factor_ = problem.pixel_factor;
        if (kMasked && problem.buffers.value != nullptr) {
            scale *= static_cast<double>(problem.buffers.mask_scales[sample].window);
            pixel_factor_ *= static_cast<double>(problem.buffers.mask_scales[sample].pixel);
        }
        const auto all = [](double value) { return Vector<T>{} + T(value); };
        constants_ = {all(p.alpha),
                      all(p.beta),
                      all(p.gamma),
                      all(p.c1),
                      all(p.c2),
                      all(p.c2 / 2),
                      all(p.noise),
                      all(2 * (kAdditive ? p.alpha : 1) * scale),
                      all(2 * p.beta * scale),
                      all(kAdditive ? p.gamma * scale : 2 * scale),
                      all(p.form == Form::kContrastStructure ? 0 : 1)};
    }

    TileSums run() {
        if (rows_.begin >= rows_.end || columns_.count <= 0) return {};
        lay_out_scratch();
        next_row_ = rows_.begin - half_;
        next_window_ = rows_.begin;
        if constexpr (kGradients == 0) {
            while (next_window_ < rows_.end) score_rows();
        } else {
            for (std::int64_t row = tile_.row_begin; row < tile_.row_end; row += kPixelRows) {
                while (next_window_ < smaller(row + kPixelRows + half_, rows_.end)) score_rows();
                write_gradients(row);
            }
        }
        return sums_;
    }

  private:
    static constexpr int kLane = kLanes<T>;
    static constexpr bool kBoth = kGradients == 2;
    static constexpr int kFields = kDerivatives<kBoth>;
    static constexpr int kPixelRows = kGradientRows<kBoth>;
    static constexpr int kMoments = kRecordedMoments<kAdditive, kMasked>;

    // Windows this far from the tile's pixels have a part in what is asked for.
    std::int64_t reach() const { return kGradients ? half_ : 0; }

    // The centres of windows from `begin` to `end`, in an image of `length` rows or columns.
    Range centres(std::int64_t length, std::int64_t begin, std::int64_t end) const {
        return overlap({lead_, length - lead_}, {begin, end});
    }

    Range from_origin(Range columns) const { return {columns.begin - columns_.origin, columns.end - columns_.origin}; }

    void lay_out_scratch() {
        const std::int64_t taps = 2 * half_ + 1, stride = columns_.stride, width = pixels_.end - pixels_.begin;
        const std::int64_t image_slots = kGradients ? 2 * half_ + kRowGroup + kPixelRows : taps + kRowGroup - 1;
        const std::int64_t moment_slots = taps + kRowGroup - 1;
        const std::int64_t derivative_slots = kGradients ? 2 * half_ + kRowGroup + kPixelRows : 0;
        const std::int64_t moment_record = odd_lines<T>(kMoments * columns_.padded);
        const std::int64_t derivative_record = odd_lines<T>(kSummedFields<kBoth> * (width + kLane));
        const std::int64_t image_values = image_slots * decltype(images_)::kImages * stride;
        const std::int64_t derivative_values =
            kGradients ? kFields * kRowGroup * stride + (derivative_slots + 1) * derivative_record + width + kLine<T>
                       : 0;
        const std::int64_t bytes =
            (image_values + moment_slots * moment_record + derivative_values) * static_cast<std::int64_t>(sizeof(T));
        auto* memory = static_cast<char*>(thread_scratch(bytes + (taps + larger(kRowGroup, kPixelRows)) *
                                                                     static_cast<std::int64_t>(sizeof(const T*))));
        pointers_ = reinterpret_cast<const T**>(memory + bytes);
        T* at = reinterpret_cast<T*>(memory);
        images_.lay_out(at, rows_.begin - half_, image_slots);
        at += image_values;
        moments_ = {at, rows_.begin - half_, moment_slots, moment_record};
        at += moment_slots * moment_record;
        if constexpr (kGradients != 0) {
            // Outside the scored windows derivatives are 0.
            std::memset(at, 0, static_cast<std::size_t>(kFields * kRowGroup * stride + derivative_record) * sizeof(T));
            derivatives_ = at + columns_.margin;
            at += kFields * kRowGroup * stride;
            zero_row_ = at;
            at += derivative_record;
            row_derivatives_ = {at, rows_.begin, derivative_slots, derivative_record};
            unwanted_row_ = at + derivative_slots * derivative_record;
        }
    }

    void read_rows_until(std::int64_t end) {
        for (; next_row_ < end; ++next_row_) {
            images_.read(next_row_, moments_.row(next_row_));
            if (pixel_factor_ != 0 && next_row_ >= tile_.row_begin && next_row_ < tile_.row_end)
                sums_.difference += absolute_difference(images_.row(next_row_));
        }
    }

    // The first of the next kRowGroup rows of all that is read and written, at u = 0.
    struct Ahead {
        const char *x, *y;
        const T *gradient_x, *gradient_y;
    };

    Ahead look_ahead() const {
        const std::int64_t row = next_window_ - half_ - kRowGroup;
        return {images_.source(kX, next_row_, 0), images_.source(kY, next_row_, 0),
                kGradients ? gradient_at(gradient_x_, row, 0) : nullptr,
                kBoth ? gradient_at(gradient_y_, row, 0) : nullptr};
    }

    // Asks for it at u: memory answers while windows are scored. Some of it may lie outside the images, which a
    // prefetch may.
    TWOSTAGE_INLINE void fetch(Ahead at, std::int64_t u) const {
        const std::int64_t width = problem_.params.width, bytes = pixel_bytes(problem_.buffers.type);
        for (int row = 0; row < kRowGroup; ++row) {
            __builtin_prefetch(at.x + u * bytes);
            __builtin_prefetch(at.y + u * bytes);
            at.x += width * bytes;
            at.y += width * bytes;
            if constexpr (kGradients != 0) __builtin_prefetch(at.gradient_x + u, 1);
            if constexpr (kBoth) __builtin_prefetch(at.gradient_y + u, 1);
            at.gradient_x += width;
            at.gradient_y += width;
        }
    }

    // Where the gradient of pixel (row, u) lies.
    TWOSTAGE_INLINE T* gradient_at(T* gradient, std::int64_t row, std::int64_t u) const {
        const SimilarityParams& p = problem_.params;
        return gradient + (tile_.plane * p.height + row) * p.width + columns_.origin + u;
    }

    // Sum over the tile's own pixels of a row, each times its mask.
    double absolute_difference(const T* row) const {
        const std::int64_t stride = columns_.stride;
        double sum = 0;
        for (std::int64_t u = pixels_.begin; u < pixels_.end; u += kLane) {
            const Vector<T> difference = load(row + kX * stride + u) - load(row + kY * stride + u);
            Vector<T> size = larger_of(difference, -difference);
            if constexpr (kMasked) size *= load(row + kMask * stride + u);
            size = keep_lanes<T>(size, 0, pixels_.end - u);
            for (int lane = 0; lane < kLane; ++lane) sum += static_cast<double>(size[lane]);
        }
        return sum;
    }

    // Scores the next kRowGroup rows of windows and sums their derivatives along the rows.
    void score_rows() {
        const std::int64_t first = next_window_;
        const int rows = static_cast<int>(smaller(kRowGroup, rows_.end - first)),
                  taps = static_cast<int>(2 * half_ + 1);
        next_window_ += kRowGroup;
        read_rows_until(first + kRowGroup + half_);
        const T** rows_below = pointers_;
        for (std::int64_t row = 0; row < kRowGroup + 2 * half_; ++row)
            rows_below[row] = moments_.row(first - half_ + row);
        const T* centre = moments_.row(first + kRowGroup / 2);
        const bool all_count = !kMasked && problem_.buffers.upstream == nullptr && problem_.buffers.map == nullptr &&
                               first >= owned_rows_.begin && first + kRowGroup <= owned_rows_.end;
        const Ahead ahead = look_ahead();
        const std::int64_t stride = columns_.stride;
        Vector<T> sum{};
        for (std::int64_t u = 0; u < columns_.padded; u += kLane) {
            fetch(ahead, u);
            T* const to = derivatives_ + u;
            const bool whole = all_count && u >= owned_.begin && u + kLane <= owned_.end;
            if (kMasked || small_sigma_ || !whole) {
                sum += score_with_care(rows_below, centre, first, rows, u, whole, to);
            } else if constexpr (!kMasked) {
                Moments<T> moments[kRowGroup];
                column_moments<T, kTaps, kAdditive>(rows_below, centre, window_, taps, u, moments);
                repeat<kRowGroup>([&](int row) TWOSTAGE_INLINE_LAMBDA {
                    sum += score_whole_vector(moments[row], to + row * kFields * stride);
                });
            }
        }
        for (int lane = 0; lane < kLane; ++lane) sums_.deficit += static_cast<double>(sum[lane]);
        if constexpr (kGradients != 0)
            for (int row = 0; row < rows; ++row)
                row_derivatives<T, kTaps, kBoth>(derivatives_ + row * kFields * stride, images_.row(first + row),
                                                 stride, window_, taps, pixels_.begin, pixels_.end,
                                                 row_derivatives_.row(first + row));
    }

    // Scores the windows at u of `rows` rows from `first` on, whatever they are. Not inline: most windows need no such
    // care, and its registers would be taken from them.
    __attribute__((noinline)) Vector<T> score_with_care(const T* const* rows_below, const T* centre, std::int64_t first,
                                                        int rows, std::int64_t u, bool whole, T* to) const {
        const int taps = static_cast<int>(2 * half_ + 1);
        const std::int64_t row_stride = kFields * columns_.stride;
        Moments<T> moments[kRowGroup];
        Vector<T> coverage[kRowGroup];
        if constexpr (kMasked)
            for (int row = 0; row < rows; ++row)
                coverage[row] = masked_column_moments<T, kAdditive>(rows_below + row, window_, taps, u, moments[row]);
        else if (small_sigma_)
            own_column_moments<T, kTaps, kAdditive>(rows_below, window_, taps, u, moments);
        else
            column_moments<T, kTaps, kAdditive>(rows_below, centre, window_, taps, u, moments);
        Vector<T> sum{};
        for (int row = 0; row < rows; ++row)
            sum += whole ? score_whole_vector(moments[row], to + row * row_stride)
                         : score_vector(first + row, u, moments[row], coverage[row], to + row * row_stride);
        return sum;
    }

    TWOSTAGE_INLINE Vector<T> deficit_of(const Moments<T>& moments, Derivatives<T>& derivatives) const {
        return kAdditive ? additive_deficit<T>(constants_, moments, derivatives)
                         : product_deficit<T>(constants_, moments, derivatives);
    }

    // Returns the deficits of a vector of windows that all belong to this tile, with nothing but a sum asked for.
    TWOSTAGE_INLINE Vector<T> score_whole_vector(const Moments<T>& moments, T* to) const {
        const std::int64_t stride = columns_.stride;
        Derivatives<T> derivatives;
        const Vector<T> deficit = deficit_of(moments, derivatives);
        if constexpr (kGradients != 0) {
            store(to + kOffsetX * stride, derivatives.offset_x);
            store(to + kSlopeX * stride, derivatives.slope_x);
            store(to + kCross * stride, derivatives.cross);
        }
        if constexpr (kBoth) {
            store(to + kOffsetY * stride, derivatives.offset_y);
            store(to + kSlopeY * stride, derivatives.slope_y);
        }
        return deficit;
    }

    // Returns the deficits of the windows that belong to this tile, with a mask times their `coverage`. Not inline: it
    // is rare, and its registers would be taken from the vectors that count as a whole.
    __attribute__((noinline)) Vector<T> score_vector(std::int64_t row, std::int64_t u, const Moments<T>& moments,
                                                     const Vector<T>& coverage, T* to) const {
        Derivatives<T> derivatives;
        Vector<T> deficit = deficit_of(moments, derivatives);
        if constexpr (kMasked) deficit = coverage > Vector<T>{} ? deficit : Vector<T>{};
        const std::int64_t left = columns_.count - u;
        if constexpr (kGradients != 0) {
            Vector<T> values[5] = {derivatives.offset_x, derivatives.slope_x, derivatives.cross, derivatives.offset_y,
                                   derivatives.slope_y};
            if (problem_.buffers.upstream != nullptr) {
                Vector<T> upstream = load_some(problem_.buffers.upstream + map_index(row, u), left);
                if constexpr (kMasked) upstream *= inverse_or_zero<T>(coverage);
                for (int field = 0; field < kFields; ++field) values[field] *= upstream;
            }
            for (int field = 0; field < kFields; ++field) {
                if constexpr (kMasked) values[field] = coverage > Vector<T>{} ? values[field] : Vector<T>{};
                store(to + field * columns_.stride,
                      left >= kLane ? values[field] : keep_lanes<T>(values[field], 0, left));
            }
        }
        if (problem_.buffers.map != nullptr) {
            const Vector<T> highest =
                kAdditive ? constants_.alpha + constants_.beta + constants_.gamma : Vector<T>{} + T(1);
            store_some<T>(problem_.buffers.map + map_index(row, u), highest - deficit, left);
        }
        if constexpr (kMasked) deficit *= coverage;
        if (row < owned_rows_.begin || row >= owned_rows_.end) return Vector<T>{};
        if (u >= owned_.begin && u + kLane <= owned_.end) return deficit;
        return keep_lanes<T>(deficit, owned_.begin - u, owned_.end - u);
    }

    std::int64_t map_index(std::int64_t row, std::int64_t u) const {
        return (tile_.plane * problem_.map_height + row - lead_) * problem_.map_width + columns_.origin - lead_ + u;
    }

    // Writes the gradients of the next kPixelRows rows of pixels, whose windows have all been scored.
    void write_gradients(std::int64_t first) {
        for (std::int64_t index = 0; index < kPixelRows + 2 * half_; ++index) {
            const std::int64_t row = first - half_ + index;
            const bool scored = row >= rows_.begin && row < rows_.end;
            pointers_[index] = scored ? row_derivatives_.row(row) : zero_row_;
        }
        const T* pixels[kPixelRows];
        T *to_x[kPixelRows], *to_y[kPixelRows];
        for (int output = 0; output < kPixelRows; ++output) {
            const bool wanted = first + output < tile_.row_end;
            const std::int64_t row = wanted ? first + output : first;
            pixels[output] = images_.row(row) + pixels_.begin;
            to_x[output] = wanted ? gradient_at(gradient_x_, row, pixels_.begin) : unwanted_row_;
            to_y[output] = kBoth && wanted ? gradient_at(gradient_y_, row, pixels_.begin) : unwanted_row_;
        }
        column_gradients<T, kTaps, kBoth>(pointers_, pixels, columns_.stride, window_, static_cast<int>(2 * half_ + 1),
                                          pixels_.end - pixels_.begin, to_x, to_y);
        if (!kMasked && pixel_factor_ == 0) return;
        for (int output = 0; output < kPixelRows && first + output < tile_.row_end; ++output)
            finish_gradients(pixels[output], to_x[output], to_y[output]);
    }

    // Adds the derivative of the absolute difference to a row of gradients, and hides what the mask hides.
    void finish_gradients(const T* pixels, T* to_x, T* to_y) const {
        const T factor = static_cast<T>(pixel_factor_);
        const std::int64_t width = pixels_.end - pixels_.begin, stride = columns_.stride;
        for (std::int64_t u = 0; u < width; u += kLane) {
            const std::int64_t left = width - u;
            const Vector<T> x = load(pixels + kX * stride + u), y = load(pixels + kY * stride + u);
            const Vector<T> none{};
            const Vector<T> sign = factor * ((x > y ? none + 1 : none) - (x < y ? none + 1 : none));
            const Vector<T> seen = kMasked ? load(pixels + kMask * stride + u) : none + 1;
            store_some<T>(to_x + u, seen * (load_some(to_x + u, left) + sign), left);
            if constexpr (kBoth) store_some<T>(to_y + u, seen * (load_some(to_y + u, left) - sign), left);
        }
    }

    const TileProblem<T>& problem_;
    const Tile tile_;
    const std::int64_t half_, lead_;  // lead_: rows and columns before the image's first window
    const Range rows_, owned_rows_;   // centres of the windows that are scored, and that count here
    const Columns columns_;
    const Range owned_, pixels_;  // u of the windows that count here, and of the tile's pixels
    const bool swapped_;          // x is the target: its gradient alone is wanted
    T *const gradient_x_, *const gradient_y_;
    const T* const window_;
    ImageRows<T, kTaps, kAdditive, kMasked> images_;
    Constants<T> constants_;
    bool small_sigma_;
    Ring<T> moments_;           // records of MomentField
    T* derivatives_ = nullptr;  // rows of DerivativeField, of kRowGroup rows of windows
    Ring<T> row_derivatives_;   // records of the same, summed along the rows
    const T* zero_row_ = nullptr;
    T* unwanted_row_ = nullptr;     // takes what lies below the tile
    const T** pointers_ = nullptr;  // room for the rows under one filter
    std::int64_t next_row_, next_window_;
    double pixel_factor_;
    TileSums sums_;
};

template <typename T, int kTaps, bool kAdditive, bool kMasked>
TileSums run_tile_with(const TileProblem<T>& problem, const Tile& tile) {
    const bool x = problem.buffers.prediction_gradient != nullptr, y = problem.buffers.target_gradient != nullptr;
    if (x && y) return TileRun<T, kTaps, kAdditive, 2, kMasked>(problem, tile).run();
    if (x || y) return TileRun<T, kTaps, kAdditive, 1, kMasked>(problem, tile).run();
    return TileRun<T, kTaps, kAdditive, 0, kMasked>(problem, tile).run();
}

template <typename T, bool kAdditive>
TileSums run_tile_in_form(const TileProblem<T>& problem, const Tile& tile) {
    if (problem.buffers.mask != nullptr) return run_tile_with<T, 0, kAdditive, true>(problem, tile);
    if (problem.params.window_size == 11) return run_tile_with<T, 11, kAdditive, false>(problem, tile);
    return run_tile_with<T, 0, kAdditive, false>(problem, tile);
}

template <typename T>
TileSums run_tile(const TileProblem<T>& problem, const Tile& tile) {
    return problem.params.form == Form::kAdditive ? run_tile_in_form<T, true>(problem, tile)
                                                  : run_tile_in_form<T, false>(problem, tile);
}

}  // namespace
}  // namespace twostage
