// Bilinear samples of a source image along the rows of the target.
#pragma once

#include <cmath>
#include <cstdint>

#include "paste_problem.h"
#include "paste_shape.h"
#include "pixels.h"

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
        places_ = memory.template take<std::int64_t>(width);
        steps_ = memory.template take<Step>(width);
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

    // To the neighbours on the right and below; 0 at the last column and row, which are their own neighbours.
    struct Step {
        std::int64_t right, below;
    };

    static double within(double position, double last) { return position > 0 ? position < last ? position : last : 0; }

    void find(std::int64_t row, std::int64_t column, std::int64_t count) const {
        const Walk walk(problem_->polygons.transform + polygon_ * 6, row);
        const std::int64_t last_column = source_.width - 1, last_row = source_.height - 1;
        const double most_x = static_cast<double>(last_column), most_y = static_cast<double>(last_row);
        for (std::int64_t i = 0; i < count; ++i) {
            const double x = within(walk.x(column + i), most_x), y = within(walk.y(column + i), most_y);
            const auto left = static_cast<std::int64_t>(x), top = static_cast<std::int64_t>(y);
            along_[i] = static_cast<T>(x - static_cast<double>(left));
            down_[i] = static_cast<T>(y - static_cast<double>(top));
            places_[i] = left * source_.column_stride + top * source_.row_stride;
            steps_[i] = {left < last_column ? source_.column_stride : 0, top < last_row ? source_.row_stride : 0};
        }
    }

    template <typename Pixel>
    void read(std::int64_t count, T* to, std::int64_t stride) const {
        const PasteImages& images = problem_->images;
        const PastePolygons<T>& p = problem_->polygons;
        const bool scaled = images.source_type == PixelType::kUint8 && images.type != PixelType::kUint8;
        const bool changed = p.color_gain != nullptr || p.color_offset != nullptr;
        const T scale = scaled ? static_cast<T>(1.0 / 255) : T(1);
        const T low = static_cast<T>(images.low), high = static_cast<T>(images.high);
        for (std::int64_t channel = 0; channel < images.channels; ++channel, to += stride) {
            const auto* const plane = reinterpret_cast<const Pixel*>(source_.pixels) + channel * source_.channel_stride;
            for (std::int64_t i = 0; i < count; ++i) {
                const Pixel* const at = plane + places_[i];
                const Step step = steps_[i];
                const T upper_left = static_cast<T>(number(at[0])), lower_left = static_cast<T>(number(at[step.below]));
                const T upper = upper_left + along_[i] * (static_cast<T>(number(at[step.right])) - upper_left);
                const T lower =
                    lower_left + along_[i] * (static_cast<T>(number(at[step.below + step.right])) - lower_left);
                to[i] = (upper + down_[i] * (lower - upper)) * scale;
            }
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
    std::int64_t* places_ = nullptr;
    Step* steps_ = nullptr;
    T* along_ = nullptr;
    T* down_ = nullptr;
};

}  // namespace
}  // namespace twostage
