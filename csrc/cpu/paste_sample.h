// Bilinear samples of a source image along the rows of the target.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "paste_problem.h"
#include "paste_shape.h"
#include "pixels.h"
#include "simd.h"

namespace twostage {
namespace {

constexpr std::int64_t kCacheLine = 64;  // bytes

template <typename T>
class SourceSampler {
  public:
    SourceSampler(const PasteProblem<T>& problem, std::int64_t polygon)
        : problem_(&problem),
          polygon_(polygon),
          source_(source_image(problem.images, problem.polygons.source_index[polygon])) {}

    // Takes room for rows of up to `width` pixels.
    template <typename Memory>
    void lay_out(Memory& memory, std::int64_t width) {
        left_ = memory.template take<std::int32_t>(width);
        top_ = memory.template take<std::int32_t>(width);
        places_ = memory.template take<std::int64_t>(width);
        along_ = memory.template take<T>(width);
        down_ = memory.template take<T>(width);
    }

    // The content at `count` pixels of a target row from `column` on: to[channel * stride + pixel].
    void sample(std::int64_t row, std::int64_t column, std::int64_t count, T* to, std::int64_t stride) const {
        find(row, column, count);
        const PasteImages& images = problem_->images;
        if constexpr (sizeof(T) == 8) {
            if (images.source_type == PixelType::kFloat64) return read<double>(count, to, stride);
            return read<std::uint8_t>(count, to, stride);
        } else {
            switch (images.source_type) {
                case PixelType::kUint8:
                    return read<std::uint8_t>(count, to, stride);
                case PixelType::kFloat16:
                    return read<Half>(count, to, stride);
                case PixelType::kBfloat16:
                    return read<Bfloat>(count, to, stride);
                default:
                    return read<float>(count, to, stride);
            }
        }
    }

    // Asks for the memory of what `sample` will read.
    void fetch(std::int64_t row, Run run) const {
        const PasteImages& images = problem_->images;
        const std::int64_t size = pixel_size(images.source_type);
        const Walk walk(problem_->polygons.transform + polygon_ * 6, row);
        // Pixels of the target between two cache lines of the source.
        const double speed = std::fabs(walk.step_x) * static_cast<double>(source_.column_stride * size) / kCacheLine +
                             std::fabs(walk.step_y);
        const std::int64_t stride = speed > 1 ? 1 : speed < 1e-2 ? 64 : static_cast<std::int64_t>(1 / speed);
        for (std::int64_t x = run.begin; x < run.end; x += stride) {
            const auto column = static_cast<std::int64_t>(within(walk.x(x), static_cast<double>(source_.width - 1)));
            const auto line = static_cast<std::int64_t>(within(walk.y(x), static_cast<double>(source_.height - 1)));
            const std::int64_t place = column * source_.column_stride + line * source_.row_stride;
            for (std::int64_t channel = 0; channel < images.channels; ++channel)
                __builtin_prefetch(source_.pixels + (place + channel * source_.channel_stride) * size);
        }
    }

  private:
    // Where the pixels of a target row are read.
    struct Walk {
        Walk(const T* m, std::int64_t row)
            : step_x(static_cast<double>(m[0])),
              step_y(static_cast<double>(m[3])),
              start_x(static_cast<double>(m[1]) * (static_cast<double>(row) + 0.5) + static_cast<double>(m[2]) - 0.5),
              start_y(static_cast<double>(m[4]) * (static_cast<double>(row) + 0.5) + static_cast<double>(m[5]) - 0.5) {}

        double x(std::int64_t column) const { return step_x * (static_cast<double>(column) + 0.5) + start_x; }
        double y(std::int64_t column) const { return step_y * (static_cast<double>(column) + 0.5) + start_y; }

        double step_x, step_y, start_x, start_y;
    };

    static double within(double position, double last) {
        const double above = position > 0 ? position : 0;
        return above < last ? above : last;
    }

    void find(std::int64_t row, std::int64_t column, std::int64_t count) const {
        const Walk walk(problem_->polygons.transform + polygon_ * 6, row);
        const double last_x = static_cast<double>(source_.width - 1), last_y = static_cast<double>(source_.height - 1);
        std::int32_t* const __restrict left = left_, * const __restrict top = top_;
        T* const __restrict along = along_, * const __restrict down = down_;
        for (std::int32_t i = 0; i < static_cast<std::int32_t>(count); ++i) {
            const double x = within(walk.x(column + i), last_x), y = within(walk.y(column + i), last_y);
            left[i] = static_cast<std::int32_t>(x);
            top[i] = static_cast<std::int32_t>(y);
            along[i] = static_cast<T>(x - left[i]);
            down[i] = static_cast<T>(y - top[i]);
        }
        for (std::int64_t i = 0; i < count; ++i)
            places_[i] = left[i] * source_.column_stride + top[i] * source_.row_stride;
    }

    // Those of `count` samples that have neighbours on the right and below. They follow each other: places lie on a
    // line.
    Run with_neighbours(std::int64_t count) const {
        const auto has = [this](std::int64_t i) {
            return left_[i] < source_.width - 1 && top_[i] < source_.height - 1;
        };
        Run run{0, count};
        while (run.begin < run.end && !has(run.begin)) ++run.begin;
        while (run.begin < run.end && !has(run.end - 1)) --run.end;
        return run;
    }

    static TWOSTAGE_INLINE T between(T a, T b, T share) { return a + share * (b - a); }

    // `right` and `below`: how far the neighbours are, 0 at the last column and row, which are their own neighbours.
    template <typename Pixel>
    TWOSTAGE_INLINE T mean_of_four(const Pixel* plane, std::int64_t i, std::int64_t right, std::int64_t below) const {
        const auto value = [at = plane + places_[i]](std::int64_t step)
                               TWOSTAGE_INLINE_LAMBDA { return static_cast<T>(number(at[step])); };
        return between(between(value(0), value(below), down_[i]), between(value(right), value(right + below), down_[i]),
                       along_[i]);
    }

    // The same for pixels in T that lie side by side: two are read at once.
    TWOSTAGE_INLINE T mean_of_pairs(const T* plane, std::int64_t i, std::int64_t below) const {
        typedef T Two __attribute__((vector_size(2 * sizeof(T))));
        Two upper, lower;
        std::memcpy(&upper, plane + places_[i], sizeof upper);
        std::memcpy(&lower, plane + places_[i] + below, sizeof lower);
        const Two column = upper + down_[i] * (lower - upper);
        return between(column[0], column[1], along_[i]);
    }

    template <typename Pixel>
    void read_plane(const Pixel* plane, Run inner, std::int64_t count, T scale, T* __restrict to) const {
        const std::int64_t right = source_.column_stride, below = source_.row_stride;
        const auto at_border = [&](std::int64_t i) {
            to[i] = scale * mean_of_four(plane, i, left_[i] < source_.width - 1 ? right : 0,
                                         top_[i] < source_.height - 1 ? below : 0);
        };
        for (std::int64_t i = 0; i < inner.begin; ++i) at_border(i);
        if constexpr (std::is_same_v<Pixel, T>) {
            if (right == 1) {
                for (std::int64_t i = inner.begin; i < inner.end; ++i) to[i] = mean_of_pairs(plane, i, below);
                inner.begin = inner.end;
            }
        }
        for (std::int64_t i = inner.begin; i < inner.end; ++i) to[i] = scale * mean_of_four(plane, i, right, below);
        for (std::int64_t i = inner.end; i < count; ++i) at_border(i);
    }

    template <typename Pixel>
    void read(std::int64_t count, T* to, std::int64_t stride) const {
        const PasteImages& images = problem_->images;
        const PastePolygons<T>& p = problem_->polygons;
        const bool scaled = images.source_type == PixelType::kUint8 && images.type != PixelType::kUint8;
        const bool changed = p.color_gain != nullptr || p.color_offset != nullptr;
        const T scale = scaled ? static_cast<T>(1.0 / 255) : T(1);
        const T low = static_cast<T>(images.low), high = static_cast<T>(images.high);
        const Run inner = with_neighbours(count);
        for (std::int64_t channel = 0; channel < images.channels; ++channel, to += stride) {
            read_plane(reinterpret_cast<const Pixel*>(source_.pixels) + channel * source_.channel_stride, inner, count,
                       scale, to);
            if (!changed) continue;
            const std::int64_t entry = polygon_ * images.channels + channel;
            const T gain = p.color_gain == nullptr ? T(1) : p.color_gain[entry];
            const T offset = p.color_offset == nullptr ? T(0) : p.color_offset[entry];
            for (std::int64_t i = 0; i < count; ++i) {
                const T value = to[i] * gain + offset;
                to[i] = value < low ? low : value > high ? high : value;  // NaN stays
            }
        }
    }

    const PasteProblem<T>* problem_;
    std::int64_t polygon_;
    SourceImage source_;
    std::int32_t* left_ = nullptr;
    std::int32_t* top_ = nullptr;
    std::int64_t* places_ = nullptr;  // of the upper left of four neighbours, in elements
    T* along_ = nullptr;
    T* down_ = nullptr;
};

}  // namespace
}  // namespace twostage
