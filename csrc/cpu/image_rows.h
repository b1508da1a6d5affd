// Rows of both images around a tile: each is read once, on the way to its moments, and kept while windows need it.
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

// Values of a cache line.
template <typename T>
constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));

// An odd number of cache lines: rows below each other then fall into different sets of the cache.
template <typename T>
std::int64_t odd_lines(std::int64_t values) {
    return ((values + kLine<T> - 1) / kLine<T> | 1) * kLine<T>;
}

// The columns of a tile's rows. u counts from the centre of the first window.
struct Columns {
    std::int64_t origin;          // the column of u = 0
    std::int64_t count, padded;   // windows, and up to a whole vector
    std::int64_t margin, stride;  // of a row of pixels: values before u = 0, and in all
};

template <typename T>
Columns columns_of(Range centres, std::int64_t half) {
    constexpr std::int64_t lanes = kLanes<T>, line = kLine<T>;
    const std::int64_t count = centres.end - centres.begin, padded = (count + lanes - 1) / lanes * lanes;
    const std::int64_t margin = (2 * half + lanes + line - 1) / line * line;
    return {centres.begin, count, padded, margin, odd_lines<T>(margin + padded + 2 * half + 2 * lanes)};
}

template <typename T, int kTaps, bool kAdditive, bool kMasked>
class ImageRows {
  public:
    static constexpr int kImages = kMasked ? 3 : 2;

    // `swapped`: x is the target. `window` has 2 * half + 1 weights.
    ImageRows(const TileProblem<T>& problem, std::int64_t plane, const Columns& columns, const T* window,
              std::int64_t half, bool swapped)
        : params_(problem.params),
          type_(problem.buffers.type),
          columns_(columns),
          window_(window),
          taps_(static_cast<int>(2 * half + 1)) {
        const std::int64_t pixels = params_.height * params_.width;
        const char* const images[] = {static_cast<const char*>(problem.buffers.prediction),
                                      static_cast<const char*>(problem.buffers.target)};
        for (const int field : {kX, kY})
            images_[field] = images[swapped ? 1 - field : field] + plane * pixels * pixel_bytes(type_);
        if constexpr (kMasked) mask_ = problem.buffers.mask + plane / params_.channels * pixels;
        const Range inside{-columns.origin, params_.width - columns.origin};
        read_ = overlap({-half, columns.count + half}, inside);
        edge_ = whole_vectors(larger(half, kLane));
        const ImageType own_type = sizeof(T) == 8 ? ImageType::kFloat64 : ImageType::kFloat32;
        if (kMasked || type_ != own_type) return;
        const std::int64_t planes = params_.batch * params_.channels;
        loadable_ = {edge_ - plane * pixels, (planes - plane) * pixels - columns.padded - edge_};
        const Range unclipped{inside.begin + half, inside.end - half};
        in_place_.begin = whole_vectors(larger(unclipped.begin, 0));
        in_place_.end = unclipped.end < columns.count ? unclipped.end / kLane * kLane : columns.padded;
    }

    // Lays the rows out in `memory`, of `slots` rows of kImages * columns.stride values.
    void lay_out(T* memory, std::int64_t first_row, std::int64_t slots) {
        rows_ = {memory + columns_.margin, first_row, slots, kImages * columns_.stride};
        for (std::int64_t slot = 0; slot < slots; ++slot)
            for (const int field : {kX, kY}) clear_beside(rows_.base + (slot * kImages + field) * columns_.stride);
    }

    // The rows of ImageField, columns.stride apart.
    TWOSTAGE_INLINE const T* row(std::int64_t row) const { return rows_.row(row); }

    // Where pixel (row, u) of x lies, or would lie if it is outside the image.
    TWOSTAGE_INLINE const char* source(int field, std::int64_t row, std::int64_t u) const {
        return images_[field] + (row * params_.width + columns_.origin + u) * pixel_bytes(type_);
    }

    // Reads a row and records its moments.
    void read(std::int64_t row, T* moments) {
        T* const to = rows_.row(row);
        T *const x = to + kX * columns_.stride, *const y = to + kY * columns_.stride;
        if constexpr (kMasked) {
            clear_beside(x);
            clear_beside(y);
            copy(kX, row, x);
            copy(kY, row, y);
            read_mask(row, to + kMask * columns_.stride);
            hide_pixels(to + kMask * columns_.stride, x, latest_x_);
            hide_pixels(to + kMask * columns_.stride, y, latest_y_);
            masked_row_moments<T, kAdditive>(to, columns_.stride, window_, taps_, columns_.padded, moments);
        } else {
            if (in_place_.begin < in_place_.end && loads_reach(row)) return read_in_place(row, to, moments);
            copy(kX, row, x);
            copy(kY, row, y);
            record_moments(x, y, to, {0, columns_.padded}, moments);
        }
    }

  private:
    static constexpr std::int64_t kLane = kLanes<T>;

    static std::int64_t whole_vectors(std::int64_t values) { return (values + kLane - 1) / kLane * kLane; }

    // Whether all that vectors at and beside u = 0 ... padded take in is memory of the images, be it of another row.
    bool loads_reach(std::int64_t row) const {
        const std::int64_t first = row * params_.width + columns_.origin;
        return row >= 0 && row < params_.height && first >= loadable_.begin && first <= loadable_.end;
    }

    // Takes pixels from where they are, for windows that do not reach over the image's border.
    void read_in_place(std::int64_t row, T* to, T* moments) const {
        const T* const x = reinterpret_cast<const T*>(source(kX, row, 0));
        const T* const y = reinterpret_cast<const T*>(source(kY, row, 0));
        record_moments(x, y, to, in_place_, moments);
        const auto copy_vectors = [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t u = begin; u < end; u += kLane) {
                store(to + kX * columns_.stride + u, keep_lanes<T>(load(x + u), read_.begin - u, read_.end - u));
                store(to + kY * columns_.stride + u, keep_lanes<T>(load(y + u), read_.begin - u, read_.end - u));
            }
        };
        copy_vectors(-edge_, in_place_.begin);
        copy_vectors(smaller(in_place_.end, read_.end / kLane * kLane), columns_.padded + edge_);
        const T* const own = to;
        record_moments(own + kX * columns_.stride, own + kY * columns_.stride, to, {0, in_place_.begin}, moments);
        record_moments(own + kX * columns_.stride, own + kY * columns_.stride, to, {in_place_.end, columns_.padded},
                       moments);
    }

    // Zeros in the columns that are not read. A mask's fill spoils them: then they are cleared before every row.
    void clear_beside(T* row) const {
        const std::int64_t begin = -columns_.margin, end = columns_.stride - columns_.margin;
        std::memset(row + begin, 0, static_cast<std::size_t>(read_.begin - begin) * sizeof(T));
        std::memset(row + read_.end, 0, static_cast<std::size_t>(end - read_.end) * sizeof(T));
    }

    // The pixels of a row, or zeros outside the image.
    void copy(int field, std::int64_t row, T* to) const {
        const std::int64_t count = read_.end - read_.begin;
        if (row < 0 || row >= params_.height)
            std::memset(to + read_.begin, 0, static_cast<std::size_t>(count) * sizeof(T));
        else
            convert_pixels(source(field, row, read_.begin), type_, count, to + read_.begin);
    }

    void record_moments(const T* x, const T* y, T* row, Range columns, T* moments) const {
        row_moments<T, kTaps, kAdditive>(x, y, row, columns_.stride, window_, taps_, columns.begin, columns.end,
                                         moments);
    }

    // The mask of `row`, which goes on beyond the border as it is there, if windows reach beyond it.
    void read_mask(std::int64_t row, T* to) const {
        const T* from = mask_ + smaller(larger(row, 0), params_.height - 1) * params_.width;
        for (std::int64_t u = -columns_.margin; u < columns_.stride - columns_.margin; ++u) {
            const std::int64_t column = columns_.origin + u, nearest = smaller(larger(column, 0), params_.width - 1);
            to[u] = column == nearest || params_.same_padding ? from[nearest] : T(0);
        }
    }

    // Hidden pixels take the value of the pixel before them, so that moments about them keep their digits.
    void hide_pixels(const T* mask, T* row, T& latest) const {
        const std::int64_t begin = -columns_.margin, end = columns_.stride - columns_.margin;
        std::int64_t first = begin;
        while (first < end && mask[first] == 0) ++first;
        if (first < end) latest = row[first];
        for (std::int64_t u = begin; u < end; ++u) row[u] = latest = mask[u] == 0 ? latest : row[u];
    }

    const SimilarityParams& params_;
    const ImageType type_;
    const Columns& columns_;
    const T* const window_;
    const int taps_;
    const char* images_[2];    // x and y: this plane of them
    const T* mask_ = nullptr;  // of this sample
    Range read_;               // u of the columns that windows reach, and that are in the image
    std::int64_t edge_;        // what windows and vectors take in on either side, in whole vectors
    Range in_place_{0, 0};     // u of whole vectors whose pixels are taken from where they are
    Range loadable_;           // where in the plane u = 0 may be for that
    Ring<T> rows_{};
    T latest_x_{}, latest_y_{};  // the last visible pixel
};

}  // namespace
}  // namespace twostage
