// One tile, streamed from top to bottom: each row of pixels is read once, each row of gradients written once, and what
// lies between is held in rings of a few dozen rows.
//
// Rows and columns are the image's; a window is named by its centre pixel. u counts columns from the first window's
// centre. Where whole windows only are scored, no centre lies nearer to the image's border than half a window.
#pragma once

#include "convert.h"
#include "filters.h"
#include "ranges.h"
#include "simd.h"
#include "tile.h"

namespace twostage {
namespace {

// Records of the latest rows.
template <typename T>
struct Ring {
    T* base;
    std::int64_t first_row, slots, record;
    // In 32 bits, in which a division takes half as long; a tile has some hundred rows.
    TWOSTAGE_INLINE T* row(std::int64_t row) const {
        return base + static_cast<std::uint32_t>(row - first_row) % static_cast<std::uint32_t>(slots) * record;
    }
};

// kGradients: 0, 1 (of x alone) or 2. kTaps as in filters.h.
template <typename T, int kTaps, bool kAdditive, int kGradients, bool kMasked>
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
        // A window of one pixel has no variance about itself; about another pixel, rounding would leave one.
        small_sigma_ = half_ == 0 || static_cast<double>(problem.buffers.sigma[sample]) < kSmallSigma;
        double scale = problem.window_factor;
        pixel_factor_ = problem.pixel_factor;
        if constexpr (kMasked) {
            mask_ = problem.buffers.mask + sample * p.height * p.width;
            if (problem.buffers.value != nullptr) {
                scale *= static_cast<double>(problem.buffers.mask_scales[sample].window);
                pixel_factor_ *= static_cast<double>(problem.buffers.mask_scales[sample].pixel);
            }
        }
        constants_ = {T(p.alpha),
                      T(p.beta),
                      T(p.gamma),
                      T(p.c1),
                      T(p.c2),
                      T(p.c2 / 2),
                      T(p.noise),
                      T(2 * (kAdditive ? p.alpha : 1) * scale),
                      T(2 * p.beta * scale),
                      T(kAdditive ? p.gamma * scale : 2 * scale),
                      T(p.form == Form::kContrastStructure ? 0 : 1)};
        swapped_ = kGradients == 1 && problem.buffers.prediction_gradient == nullptr;
    }

    TileSums run() {
        if (rows_.begin >= rows_.end || count_ <= 0) return {};
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
    static constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));  // values of a cache line
    static constexpr bool kBoth = kGradients == 2;
    static constexpr int kFields = kDerivatives<kBoth>;
    static constexpr int kPixelRows = kGradientRows<kBoth>;
    static constexpr int kImages = kMasked ? 3 : 2;
    static constexpr int kMoments = kRecordedMoments<kAdditive, kMasked>;

    void lay_out_scratch() {
        const std::int64_t taps = 2 * half_ + 1;
        padded_ = (count_ + kLane - 1) / kLane * kLane;
        margin_ = (2 * half_ + kLane + kLine - 1) / kLine * kLine;
        stride_ = odd_lines(margin_ + padded_ + 2 * half_ + 2 * kLane);
        width_ = tile_.column_end - tile_.column_begin;
        const std::int64_t image_slots = kGradients ? 2 * half_ + kRowGroup + kPixelRows : taps + kRowGroup - 1;
        const std::int64_t moment_slots = taps + kRowGroup - 1;
        const std::int64_t derivative_slots = kGradients ? 2 * half_ + kRowGroup + kPixelRows : 0;
        const std::int64_t moment_record = odd_lines(kMoments * padded_);
        const std::int64_t derivative_record = odd_lines(kSummedFields<kBoth> * (width_ + kLane));
        const std::int64_t image_values = image_slots * kImages * stride_;
        const std::int64_t derivative_values =
            kGradients ? kFields * kRowGroup * stride_ + (derivative_slots + 1) * derivative_record + width_ + kLine
                       : 0;
        const std::int64_t bytes =
            (image_values + moment_slots * moment_record + derivative_values) * static_cast<std::int64_t>(sizeof(T));
        auto* memory = static_cast<char*>(thread_scratch(bytes + (taps + larger(kRowGroup, kPixelRows)) *
                                                                     static_cast<std::int64_t>(sizeof(const T*))));
        pointers_ = reinterpret_cast<const T**>(memory + bytes);
        T* at = reinterpret_cast<T*>(memory);
        images_ = {at + margin_, rows_.begin - half_, image_slots, kImages * stride_};
        inside_ = overlap({-half_, count_ + half_}, {-origin_, problem_.params.width - origin_});
        for (std::int64_t slot = 0; slot < image_slots; ++slot)
            for (const int field : {kX, kY}) clear_beside(images_.base + (slot * kImages + field) * stride_);
        at += image_values;
        moments_ = {at, rows_.begin - half_, moment_slots, moment_record};
        at += moment_slots * moment_record;
        if constexpr (kGradients != 0) {
            // Outside the scored windows derivatives are 0.
            std::memset(at, 0, static_cast<std::size_t>(kFields * kRowGroup * stride_ + derivative_record) * sizeof(T));
            derivatives_ = at + margin_;
            at += kFields * kRowGroup * stride_;
            zero_row_ = at;
            at += derivative_record;
            row_derivatives_ = {at, rows_.begin, derivative_slots, derivative_record};
            unwanted_row_ = at + derivative_slots * derivative_record;
        }
    }

    // An odd number of cache lines: rows below each other then fall into different sets of the cache.
    static std::int64_t odd_lines(std::int64_t values) { return ((values + kLine - 1) / kLine | 1) * kLine; }

    // Zeros in the columns that are not read. A mask's fill spoils them: then they are cleared before every row.
    void clear_beside(T* row) const {
        const std::int64_t begin = -margin_, end = stride_ - margin_;
        std::memset(row + begin, 0, static_cast<std::size_t>(inside_.begin - begin) * sizeof(T));
        std::memset(row + inside_.end, 0, static_cast<std::size_t>(end - inside_.end) * sizeof(T));
    }

    // Pixels of `row`, or zeros outside the image. Beside the columns that are inside, the ring holds zeros already.
    void read_row(const void* image, std::int64_t row, T* to) const {
        const SimilarityParams& p = problem_.params;
        const std::int64_t count = inside_.end - inside_.begin;
        if constexpr (kMasked) clear_beside(to);
        if (row < 0 || row >= p.height) {
            std::memset(to + inside_.begin, 0, static_cast<std::size_t>(count) * sizeof(T));
            return;
        }
        const std::int64_t first = pixel_index(row, inside_.begin);
        const ImageType type = problem_.buffers.type;
        convert_pixels(static_cast<const char*>(image) + first * pixel_bytes(type), type, count, to + inside_.begin);
    }

    // The mask of `row`, which goes on beyond the border as it is there, if windows reach beyond it.
    void read_mask(std::int64_t row, T* to) const {
        const SimilarityParams& p = problem_.params;
        const T* from = mask_ + smaller(larger(row, 0), p.height - 1) * p.width;
        for (std::int64_t u = -margin_; u < stride_ - margin_; ++u) {
            const std::int64_t column = origin_ + u, nearest = smaller(larger(column, 0), p.width - 1);
            to[u] = column == nearest || p.same_padding ? from[nearest] : T(0);
        }
    }

    // Hidden pixels take the value of the pixel before them, so that moments about them keep their digits.
    void hide_pixels(const T* mask, T* row, T& latest) const {
        const std::int64_t begin = -margin_, end = stride_ - margin_;
        std::int64_t first = begin;
        while (first < end && mask[first] == 0) ++first;
        if (first < end) latest = row[first];
        for (std::int64_t u = begin; u < end; ++u) row[u] = latest = mask[u] == 0 ? latest : row[u];
    }

    void read_rows_until(std::int64_t end) {
        const SimilarityBuffers<T>& buffers = problem_.buffers;
        for (; next_row_ < end; ++next_row_) {
            T* row = images_.row(next_row_);
            read_row(swapped_ ? buffers.target : buffers.prediction, next_row_, row + kX * stride_);
            read_row(swapped_ ? buffers.prediction : buffers.target, next_row_, row + kY * stride_);
            const int taps = static_cast<int>(2 * half_ + 1);
            if constexpr (kMasked) {
                read_mask(next_row_, row + kMask * stride_);
                hide_pixels(row + kMask * stride_, row + kX * stride_, latest_x_);
                hide_pixels(row + kMask * stride_, row + kY * stride_, latest_y_);
                masked_row_moments<T, kAdditive>(row, stride_, window_, taps, padded_, moments_.row(next_row_));
            } else {
                row_moments<T, kTaps, kAdditive>(row, stride_, window_, taps, padded_, moments_.row(next_row_));
            }
            if (pixel_factor_ != 0 && next_row_ >= tile_.row_begin && next_row_ < tile_.row_end)
                sums_.difference += absolute_difference(row);
        }
    }

    // Asks for what the next kRowGroup rows will read and write at u: memory answers while windows are scored. Some of
    // it may lie outside the images, which a prefetch may.
    TWOSTAGE_INLINE void fetch_ahead(std::int64_t u) const {
        const SimilarityBuffers<T>& buffers = problem_.buffers;
        const std::int64_t bytes = pixel_bytes(buffers.type);
        for (std::int64_t row = 0; row < kRowGroup; ++row) {
            const std::int64_t to_read = pixel_index(next_row_ + row, u) * bytes;
            __builtin_prefetch(static_cast<const char*>(buffers.prediction) + to_read);
            __builtin_prefetch(static_cast<const char*>(buffers.target) + to_read);
            if constexpr (kGradients != 0) {
                const std::int64_t to_write = pixel_index(next_window_ - half_ - kRowGroup + row, u);
                __builtin_prefetch((swapped_ ? buffers.target_gradient : buffers.prediction_gradient) + to_write, 1);
                if constexpr (kBoth) __builtin_prefetch(buffers.target_gradient + to_write, 1);
            }
        }
    }

    TWOSTAGE_INLINE std::int64_t pixel_index(std::int64_t row, std::int64_t u) const {
        return (tile_.plane * problem_.params.height + row) * problem_.params.width + origin_ + u;
    }

    // Sum over the tile's own pixels of a row, each times its mask.
    double absolute_difference(const T* row) const {
        const std::int64_t begin = tile_.column_begin - origin_, end = tile_.column_end - origin_;
        double sum = 0;
        for (std::int64_t u = begin; u < end; u += kLane) {
            const Vector<T> difference = load(row + kX * stride_ + u) - load(row + kY * stride_ + u);
            Vector<T> size = larger_of(difference, -difference);
            if constexpr (kMasked) size *= load(row + kMask * stride_ + u);
            size = keep_lanes<T>(size, 0, end - u);
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
        const Constants<T> constants = constants_;
        const bool all_count = !kMasked && problem_.buffers.upstream == nullptr && problem_.buffers.map == nullptr &&
                               first >= owned_rows_.begin && first + kRowGroup <= owned_rows_.end;
        Vector<T> sum{};
        for (std::int64_t u = 0; u < padded_; u += kLane) {
            fetch_ahead(u);
            Moments<T> moments[kRowGroup];
            Vector<T> coverage[kRowGroup];
            if constexpr (kMasked)
                for (int row = 0; row < rows; ++row)
                    coverage[row] =
                        masked_column_moments<T, kAdditive>(rows_below + row, window_, taps, u, moments[row]);
            else if (small_sigma_)
                own_column_moments<T, kTaps, kAdditive>(rows_below, window_, taps, u, moments);
            else
                column_moments<T, kTaps, kAdditive>(rows_below, centre, window_, taps, u, moments);
            T* const to = derivatives_ + u;
            if (all_count && u >= owned_.begin && u + kLane <= owned_.end)
                repeat<kRowGroup>([&](int row) TWOSTAGE_INLINE_LAMBDA {
                    sum += score_whole_vector(constants, moments[row], to + row * kFields * stride_);
                });
            else
                for (int row = 0; row < rows; ++row)
                    sum += score_vector(constants, first + row, u, moments[row], coverage[row],
                                        to + row * kFields * stride_);
        }
        for (int lane = 0; lane < kLane; ++lane) sums_.deficit += static_cast<double>(sum[lane]);
        if constexpr (kGradients != 0)
            for (int row = 0; row < rows; ++row)
                row_derivatives<T, kTaps, kBoth>(derivatives_ + row * kFields * stride_, images_.row(first + row),
                                                 stride_, window_, taps, tile_.column_begin - origin_,
                                                 tile_.column_end - origin_, row_derivatives_.row(first + row));
    }

    static TWOSTAGE_INLINE Vector<T> deficit_of(const Constants<T>& constants, const Moments<T>& moments,
                                                Derivatives<T>& derivatives) {
        return kAdditive ? additive_deficit<T>(constants, moments, derivatives)
                         : product_deficit<T>(constants, moments, derivatives);
    }

    // Returns the deficits of a vector of windows that all belong to this tile, with nothing but a sum asked for.
    TWOSTAGE_INLINE Vector<T> score_whole_vector(const Constants<T>& constants, const Moments<T>& moments,
                                                 T* to) const {
        Derivatives<T> derivatives;
        const Vector<T> deficit = deficit_of(constants, moments, derivatives);
        if constexpr (kGradients != 0) {
            store(to + kOffsetX * stride_, derivatives.offset_x);
            store(to + kSlopeX * stride_, derivatives.slope_x);
            store(to + kCross * stride_, derivatives.cross);
        }
        if constexpr (kBoth) {
            store(to + kOffsetY * stride_, derivatives.offset_y);
            store(to + kSlopeY * stride_, derivatives.slope_y);
        }
        return deficit;
    }

    // Returns the deficits of the windows that belong to this tile, with a mask times their `coverage`.
    Vector<T> score_vector(const Constants<T>& constants, std::int64_t row, std::int64_t u, const Moments<T>& moments,
                           const Vector<T>& coverage, T* to) const {
        Derivatives<T> derivatives;
        Vector<T> deficit = deficit_of(constants, moments, derivatives);
        if constexpr (kMasked) deficit = coverage > Vector<T>{} ? deficit : Vector<T>{};
        const std::int64_t left = count_ - u;
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
                store(to + field * stride_, left >= kLane ? values[field] : keep_lanes<T>(values[field], 0, left));
            }
        }
        if (problem_.buffers.map != nullptr) {
            const T highest = kAdditive ? constants.alpha + constants.beta + constants.gamma : T(1);
            store_some<T>(problem_.buffers.map + map_index(row, u), highest - deficit, left);
        }
        if constexpr (kMasked) deficit *= coverage;
        if (row < owned_rows_.begin || row >= owned_rows_.end) return Vector<T>{};
        if (u >= owned_.begin && u + kLane <= owned_.end) return deficit;
        return keep_lanes<T>(deficit, owned_.begin - u, owned_.end - u);
    }

    std::int64_t map_index(std::int64_t row, std::int64_t u) const {
        return (tile_.plane * problem_.map_height + row - lead_) * problem_.map_width + origin_ - lead_ + u;
    }

    // Writes the gradients of the next kPixelRows rows of pixels, whose windows have all been scored.
    void write_gradients(std::int64_t first) {
        const std::int64_t begin = tile_.column_begin - origin_;
        for (std::int64_t index = 0; index < kPixelRows + 2 * half_; ++index) {
            const std::int64_t row = first - half_ + index;
            const bool scored = row >= rows_.begin && row < rows_.end;
            pointers_[index] = scored ? row_derivatives_.row(row) : zero_row_;
        }
        const SimilarityBuffers<T>& buffers = problem_.buffers;
        T* const gradient_x = swapped_ ? buffers.target_gradient : buffers.prediction_gradient;
        const T* pixels[kPixelRows];
        T *to_x[kPixelRows], *to_y[kPixelRows];
        for (int output = 0; output < kPixelRows; ++output) {
            const bool wanted = first + output < tile_.row_end;
            const std::int64_t row = wanted ? first + output : first;
            const std::int64_t at = pixel_index(row, begin);
            pixels[output] = images_.row(row) + begin;
            to_x[output] = wanted ? gradient_x + at : unwanted_row_;
            to_y[output] = !kBoth ? nullptr : wanted ? buffers.target_gradient + at : unwanted_row_;
        }
        column_gradients<T, kTaps, kBoth>(pointers_, pixels, stride_, window_, static_cast<int>(2 * half_ + 1), width_,
                                          to_x, to_y);
        if (!kMasked && pixel_factor_ == 0) return;
        for (int output = 0; output < kPixelRows && first + output < tile_.row_end; ++output)
            finish_gradients(pixels[output], to_x[output], to_y[output]);
    }

    // Adds the derivative of the absolute difference to a row of gradients, and hides what the mask hides.
    void finish_gradients(const T* pixels, T* to_x, T* to_y) const {
        const T factor = static_cast<T>(pixel_factor_);
        for (std::int64_t u = 0; u < width_; u += kLane) {
            const std::int64_t left = width_ - u;
            const Vector<T> x = load(pixels + kX * stride_ + u), y = load(pixels + kY * stride_ + u);
            const Vector<T> none{};
            const Vector<T> sign = factor * ((x > y ? none + 1 : none) - (x < y ? none + 1 : none));
            const Vector<T> seen = kMasked ? load(pixels + kMask * stride_ + u) : none + 1;
            store_some<T>(to_x + u, seen * (load_some(to_x + u, left) + sign), left);
            if constexpr (kBoth) store_some<T>(to_y + u, seen * (load_some(to_y + u, left) - sign), left);
        }
    }

    const TileProblem<T>& problem_;
    const Tile tile_;
    const std::int64_t half_;
    Constants<T> constants_;
    const T* window_;
    bool small_sigma_;
    bool swapped_;  // x is the target: its gradient alone is wanted
    std::int64_t lead_, origin_, count_, padded_, margin_, stride_, width_;
    Range rows_, owned_rows_;   // centres of the windows that are scored, and that count here
    Range owned_;               // u of the windows that count here
    Range inside_;              // u of the columns that are read
    Ring<T> images_;            // rows of ImageField
    Ring<T> moments_;           // records of MomentField
    T* derivatives_ = nullptr;  // rows of DerivativeField, of kRowGroup rows of windows
    Ring<T> row_derivatives_;   // records of the same, summed along the rows
    const T* zero_row_ = nullptr;
    T* unwanted_row_ = nullptr;     // takes what lies below the tile
    const T** pointers_ = nullptr;  // room for the rows under one filter
    std::int64_t next_row_, next_window_;
    const T* mask_ = nullptr;    // of this sample
    T latest_x_{}, latest_y_{};  // the last visible pixel
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
