// The rows of both images that a block works on: fetched ahead of their use, then kept in shared memory.
#pragma once

#include <type_traits>

#include "strip.h"

namespace twostage {

template <typename T, int kColumns, bool kGradient, bool kMasked>
class StripImages {
    using Memory = StripMemory<T, kColumns, kGradient, kMasked>;
    using Word = std::conditional_t<sizeof(T) == 8, T, std::uint32_t>;  // a pixel of an image as it is stored
    static constexpr int kGroups = 2;  // of kColumns pixels each, that a thread fetches of a row
    static constexpr unsigned kAllInImage = (1u << (kGroups * kColumns)) - 1;

  protected:
    TWOSTAGE_DEVICE StripImages(const StripProblem<T>& problem, int strip, int segment, std::int64_t plane, int role)
        : p_(problem), thread_(static_cast<int>(threadIdx.x)), threads_(static_cast<int>(blockDim.x)) {
        sample_ = plane / p_.channels;
        columns_ = strip_columns(p_.width, p_.lead, p_.strips, strip, kGradient, kColumns);
        row_begin_ = part_begin(p_.height, p_.segments, segment);
        row_end_ = part_begin(p_.height, p_.segments, segment + 1);
        const int reach = kGradient ? kHalf : 0;
        window_begin_ = max(row_begin_ - reach, p_.lead);
        window_end_ = min(row_end_ + reach, p_.height - p_.lead);
        x_ = p_.image[role];
        y_ = p_.image[1 - role];
        plane_ = plane * p_.height * p_.width;
        mask_plane_ = kMasked ? sample_ * p_.height * p_.width : 0;
        gradient_ = kGradient ? p_.gradient[role] + plane_ + columns_.pixel_begin + kColumns * thread_ : nullptr;
        // Pairs of pixels lie at even addresses, and none is cut in two.
        const std::uintptr_t bytes = sizeof(T) == 8 ? 16 : p_.type == ImageType::kFloat32 ? 8 : 4;
        paired_ = p_.width % 2 == 0 && plane_ % 2 == 0 && reinterpret_cast<std::uintptr_t>(x_) % bytes == 0 &&
                  reinterpret_cast<std::uintptr_t>(y_) % bytes == 0 &&
                  reinterpret_cast<std::uintptr_t>(gradient_) % (2 * sizeof(T)) == 0;
        unsigned char* memory = dynamic_shared_memory();
        pixels_ = reinterpret_cast<Pixel<T>*>(memory);
        mask_ = reinterpret_cast<T*>(memory + Memory::pixel_bytes(threads_) + Memory::a_bytes(threads_) +
                                     Memory::b_bytes(threads_));
        in_image_ = kAllInImage;
        for (int group = 0; group < kGroups; ++group) {
            const int first = fetched_column(group);
            for (int column = 0; column < kColumns; ++column)
                if (fetches(group) && !is_between(first + column, 0, p_.width))
                    in_image_ &= ~(1u << (group * kColumns + column));
            // Pairs are read only where none is cut in two by the border.
            fetched_[group] = static_cast<unsigned>(min(max(first, 0), max(p_.width - kColumns, 0)));
        }
        difference_ = 0;
    }

    // The pixel nearest to a place in or beside the image, as a reference: finite and not hidden, or else 0.
    TWOSTAGE_DEVICE Reference<T> pixel_near(int row, int column) const {
        const std::int64_t at =
            static_cast<std::int64_t>(min(max(row, 0), p_.height - 1)) * p_.width + min(max(column, 0), p_.width - 1);
        if (kMasked && !(p_.mask[mask_plane_ + at] > T(0))) return {0, 0};
        Reference<T> near;
        load_pixel(x_, p_.type, plane_ + at, near.x);
        load_pixel(y_, p_.type, plane_ + at, near.y);
        return {near.x - near.x == T(0) ? near.x : T(0), near.y - near.y == T(0) ? near.y : T(0)};
    }

    TWOSTAGE_DEVICE static bool is_between(int value, int begin, int end) { return value >= begin && value < end; }

    // The second group holds what the row has beyond the threads' first.
    TWOSTAGE_DEVICE bool fetches(int group) const { return group == 0 || thread_ < Memory::kMargin; }
    TWOSTAGE_DEVICE int fetched_at(int group) const { return kColumns * (thread_ + group * threads_); }
    TWOSTAGE_DEVICE int fetched_column(int group) const { return columns_.base - kHalf + fetched_at(group); }

    // Begins to read image row `row`, or the nearest that there is. What arrives is not touched until it is kept, or
    // the thread would wait for it.
    TWOSTAGE_DEVICE void fetch(int row, int end) {
        if (row >= end) return;
        const std::int64_t start = static_cast<std::int64_t>(min(max(row, 0), p_.height - 1)) * p_.width;
        if (sizeof(T) == 8 || p_.type == ImageType::kFloat32)
            fetch_as<Word>(start);
        else
            fetch_as<std::uint16_t>(start);
        if constexpr (kMasked) {
#pragma unroll
            for (int group = 0; group < kGroups; ++group)
                if (fetches(group)) next_mask_[group] = p_.mask[mask_plane_ + start + fetched_[group]];
        }
    }

    // Two numbers of 16 bits come in one word where pixels are read in pairs.
    template <typename Stored>
    TWOSTAGE_DEVICE void fetch_as(std::int64_t start) {
        struct alignas(2 * sizeof(Stored)) Pair {
            Stored of[2];
        };
        const Stored* x = static_cast<const Stored*>(x_) + (plane_ + start);
        const Stored* y = static_cast<const Stored*>(y_) + (plane_ + start);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            if (!fetches(group)) continue;
            const unsigned first = fetched_[group];
            if (kColumns == 1) {
                next_x_[group][0] = x[first];
                next_y_[group][0] = y[first];
            } else if (!paired_) {
#pragma unroll
                for (int column = 0; column < kColumns; ++column) {
                    const int at = min(max(fetched_column(group) + column, 0), p_.width - 1);
                    next_x_[group][column] = x[at];
                    next_y_[group][column] = y[at];
                }
            } else if constexpr (sizeof(Stored) == 2) {
                next_x_[group][0] = *reinterpret_cast<const Word*>(x + first);
                next_y_[group][0] = *reinterpret_cast<const Word*>(y + first);
            } else {
                const Pair pair_x = *reinterpret_cast<const Pair*>(x + first);
                const Pair pair_y = *reinterpret_cast<const Pair*>(y + first);
#pragma unroll
                for (int column = 0; column < kColumns; ++column) {
                    next_x_[group][column] = pair_x.of[column];
                    next_y_[group][column] = pair_y.of[column];
                }
            }
        }
    }

    TWOSTAGE_DEVICE T converted(const Word (&words)[kColumns], int column) const {
        if constexpr (sizeof(T) == 8) {
            return words[column];
        } else {
            if (p_.type == ImageType::kFloat32) return float_from_bits(words[column]);
            const bool packed = kColumns == 2 && paired_;
            const auto bits = static_cast<std::uint16_t>(packed ? words[0] >> (16 * column) : words[column]);
            return p_.type == ImageType::kFloat16 ? half_to_float(bits) : bfloat16_to_float(bits);
        }
    }

    // Puts the fetched row into shared memory. Beyond the image there are zeros, under the mask of the border.
    TWOSTAGE_DEVICE void keep(int row, int end) {
        if (row >= end) return;
        const int slot = (row & (Memory::kRows - 1)) * Memory::row_pixels(threads_);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            if (!fetches(group)) continue;
            const int at = slot + fetched_at(group);
            Pixel<T> pixels[kColumns];
#pragma unroll
            for (int column = 0; column < kColumns; ++column)
                pixels[column] = {converted(next_x_[group], column), converted(next_y_[group], column)};
            if (in_image_ != kAllInImage || !is_between(row, 0, p_.height)) {
#pragma unroll
                for (int column = 0; column < kColumns; ++column)
                    if (!(in_image_ >> (group * kColumns + column) & 1u) || !is_between(row, 0, p_.height))
                        pixels[column] = {0, 0};
            }
            if constexpr (kMasked) {
                if (!(next_mask_[group] > T(0))) pixels[0] = {0, 0};
                mask_[at] = next_mask_[group];
            }
            write_pixels<T, kColumns>(pixels, pixels_ + at);
            if (p_.has_difference && is_between(row, row_begin_, row_end_)) add_differences(group, pixels);
        }
    }

    // Adds the absolute differences of those pixels that are this strip's.
    TWOSTAGE_DEVICE void add_differences(int group, const Pixel<T> (&pixels)[kColumns]) {
        T difference = 0;
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
            if (is_between(fetched_column(group) + column, columns_.pixel_begin, columns_.pixel_end))
                difference += (kMasked ? next_mask_[group] : T(1)) * absolute(pixels[column].x - pixels[column].y);
        difference_ += static_cast<double>(difference);
    }

    const StripProblem<T>& p_;
    const int thread_, threads_;
    std::int64_t sample_;
    StripColumns columns_;
    int row_begin_, row_end_;        // pixel rows that are this block's
    int window_begin_, window_end_;  // window rows that are scored
    T* gradient_;                    // of the thread's first pixel in row 0
    bool paired_;                    // whether pixels are read and written in pairs
    Pixel<T>* pixels_;               // rings of rows
    T* mask_;
    double difference_;

  private:
    const void *x_, *y_;
    std::int64_t plane_, mask_plane_;
    unsigned fetched_[kGroups];                                   // first columns, moved into the image
    unsigned in_image_;                                           // bits: which of the fetched columns are there
    Word next_x_[kGroups][kColumns], next_y_[kGroups][kColumns];  // on their way from the image to shared memory
    T next_mask_[kGroups];                                        // kColumns is 1 then
};

}  // namespace twostage
