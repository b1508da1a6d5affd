// The blurred cut-out on a thread's pixels, or the sharp one. Its rows are sampled into shared memory, as many at once
// as fit there, blurred along themselves, and added up downwards in registers. What a tile's pixels see beyond the tile
// is sampled again by the tiles there: a blur of 2 pixels reaches 6, for which a tile samples twice its own pixels; in
// exchange nothing passes through the device's memory, and no polygon's size has to be known when the kernel is
// launched.
#pragma once

#include "paste_cut.cuh"

namespace twostage {

// Four numbers of a window, whose places are multiples of four.
template <typename T>
struct alignas(16) Quad {
    T of[4];
};

template <typename T, int kFields>
class Blur {
    using Memory = PasteMemory<T>;

    // Of the widest blur a row has to fit.
    static constexpr int kWidest = kTileColumns + 2 * kLargestBlurRadius + 4;
    static_assert(kFields * (kTileColumns + kWidest + 1) * sizeof(T) + (kWidest + 31) / 32 * 4 <= Memory::kRowBytes);

  public:
    // `channels` + 1 fields are used: the mask, then the channels. The window has been filled, or is being.
    TWOSTAGE_DEVICE Blur(const Cut<T>& cut, const Tile& tile, T* window, unsigned char* memory)
        : cut_(cut), tile_(tile), window_(window + Memory::kLead), thread_(static_cast<int>(threadIdx.x)) {
        const int begin = cut.box.column_begin - cut.first_column, end = cut.box.column_end - cut.first_column;
        // Taps come in fours, so the rows begin and end at multiples of four.
        begin_ = begin & ~3;
        columns_ = ((end + 3) & ~3) - begin_;
        words_ = (columns_ + 31) / 32;
        pitch_ = columns_ + 1;  // four rows beside each other lie in different banks
        const int fields = tile.channels + 1;
        const int row_bytes = fields * (kTileColumns + pitch_) * static_cast<int>(sizeof(T)) + words_ * 4;
        at_once_ = Memory::kRowBytes / row_bytes;
        blurred_ = reinterpret_cast<T*>(memory);
        sharp_ = blurred_ + fields * at_once_ * kTileColumns;
        bits_ = reinterpret_cast<unsigned*>(sharp_ + fields * at_once_ * pitch_);
    }

    // sums[row of the thread][field].
    TWOSTAGE_DEVICE void add_up(T (&sums)[kRowsPerThread][kFields]) const {
        const PixelBox box = cut_.box;
        for (int first = box.row_begin; first < box.row_end; first += at_once_) {
            const int rows = min(at_once_, box.row_end - first);
            const unsigned any = find_inside(cut_, first, rows, cut_.first_column + begin_, words_, bits_);
            if (!__syncthreads_or(any != 0)) continue;
            sample(first, rows);
            __syncthreads();
            if (cut_.radius == 0) {
                take(first, rows, sums);
                continue;
            }
            blur_along(rows);
            __syncthreads();
            blur_down(first, rows, sums);
        }
    }

  private:
    // Zeros where nothing is inside: what lies outside the polygon is not even read.
    TWOSTAGE_DEVICE void sample(int first, int rows) const {
        const Source<T>& source = cut_.source;
        const int channels = tile_.channels, dy = first - cut_.first_row;
        const unsigned columns = static_cast<unsigned>(columns_), thread = static_cast<unsigned>(thread_);
        const int rows_further = kPasteThreads / columns, columns_further = kPasteThreads % columns;
        int row = thread / columns, column = thread % columns;
        while (row < rows) {
            const bool inside = (bits_[row * words_ + column / 32] >> (column % 32) & 1u) != 0;
            T content[kFields - 1];
#pragma unroll
            for (int channel = 0; channel < kFields - 1; ++channel) content[channel] = 0;
            if (inside) source.sample(cut_.change, begin_ + column, dy + row, channels, content);
            T* const to = sharp_ + row * pitch_ + column;
            to[0] = inside ? T(1) : T(0);
#pragma unroll
            for (int channel = 0; channel < kFields - 1; ++channel)
                if (channel < channels) to[(channel + 1) * rows * pitch_] = content[channel];
            row += rows_further;
            column += columns_further;
            if (column >= columns_) {
                column -= columns_;
                ++row;
            }
        }
    }

    // Hard edges: the samples as they are.
    TWOSTAGE_DEVICE void take(int first, int rows, T (&sums)[kRowsPerThread][kFields]) const {
        const int own = tile_.row_begin + thread_ / 32 * kRowsPerThread - first, column = thread_ % 32 - begin_;
        if (column < 0 || column >= columns_) return;
#pragma unroll
        for (int j = 0; j < kRowsPerThread; ++j) {
            if (own + j < 0 || own + j >= rows) continue;
#pragma unroll
            for (int field = 0; field < kFields; ++field)
                if (field <= tile_.channels) sums[j][field] = sharp_[(field * rows + own + j) * pitch_ + column];
        }
    }

    // Eight threads for each row of a field, four columns for each thread.
    TWOSTAGE_DEVICE void blur_along(int rows) const {
        constexpr int kColumns = 4, kThreads = kTileColumns / kColumns;
        const int own = thread_ % kThreads * kColumns, lines = (tile_.channels + 1) * rows;
        // Of the tap for the first of the columns. The last column's taps are three further.
        const int taps_end = 2 * cut_.radius + 1 + kColumns - 1;
        const int tap_begin = max(begin_ - own, 0), tap_end = min(begin_ + columns_ - own, taps_end);
        for (int line = thread_ / kThreads; line < lines; line += kPasteThreads / kThreads) {
            const T* from = sharp_ + line * pitch_ + (own - begin_);
            Quad<T> sum{};
            Quad<T> before = quad(tap_begin - kColumns);
            for (int tap = tap_begin; tap < tap_end; tap += kColumns) {
                const Quad<T> weights = quad(tap);
#pragma unroll
                for (int i = 0; i < kColumns; ++i) {
                    const T value = from[tap + i];
#pragma unroll
                    for (int j = 0; j < kColumns; ++j)
                        sum.of[j] =
                            multiply_add(value, i >= j ? weights.of[i - j] : before.of[kColumns + i - j], sum.of[j]);
                }
                before = weights;
            }
            *reinterpret_cast<Quad<T>*>(blurred_ + line * kTileColumns + own) = sum;
        }
    }

    TWOSTAGE_DEVICE void blur_down(int first, int rows, T (&sums)[kRowsPerThread][kFields]) const {
        const int own = tile_.row_begin + thread_ / 32 * kRowsPerThread, radius = cut_.radius;
        if (own >= tile_.row_end) return;
        const int begin = max(first, own - radius), end = min(first + rows, own + radius + kRowsPerThread);
        const T* from = blurred_ + (begin - first) * kTileColumns + thread_ % 32;
        const T* tap = window_ + (begin - own + radius);
        T weights[kRowsPerThread];
#pragma unroll
        for (int j = 1; j < kRowsPerThread; ++j) weights[j] = tap[-j];
#pragma unroll 4
        for (int row = begin; row < end; ++row, from += kTileColumns, ++tap) {
            weights[0] = *tap;
#pragma unroll
            for (int field = 0; field < kFields; ++field) {
                if (field > tile_.channels) continue;
                const T value = from[field * rows * kTileColumns];
#pragma unroll
                for (int j = 0; j < kRowsPerThread; ++j)
                    sums[j][field] = multiply_add(value, weights[j], sums[j][field]);
            }
#pragma unroll
            for (int j = kRowsPerThread - 1; j > 0; --j) weights[j] = weights[j - 1];
        }
    }

    TWOSTAGE_DEVICE Quad<T> quad(int tap) const { return *reinterpret_cast<const Quad<T>*>(window_ + tap); }

    const Cut<T>& cut_;
    const Tile& tile_;
    const T* window_;  // of the tap furthest to the left
    int thread_;
    int begin_, columns_;  // of the sampled rows, counted from the cut's first column
    int words_, pitch_, at_once_;
    T* blurred_;      // [fields, rows, kTileColumns]
    T* sharp_;        // [fields, rows, pitch]
    unsigned* bits_;  // [rows, words]
};

}  // namespace twostage
