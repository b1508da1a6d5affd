// One block scores a strip of one image plane: it streams down the rows, each thread owning a few columns. A row of
// pixels goes into shared memory and is summed along the row from there; the sums down the columns stay in registers.
// Derivatives go the same way back, through shared memory along the row and through registers down the columns.
//
// While image row r is summed, window row r - kHalf is scored, the derivatives of window row r - kHalf - 1 are summed,
// and the gradient of pixel row r - kTaps is complete. One barrier a row.
#pragma once

#include <limits>

#include "block_sums.cuh"
#include "strip_images.cuh"
#include "window.cuh"

namespace twostage {

template <typename T, int kColumns, bool kAdditive, bool kGradient, bool kMasked>
class StripRun : StripImages<T, kColumns, kGradient, kMasked> {
    using Images = StripImages<T, kColumns, kGradient, kMasked>;
    using Images::columns_, Images::difference_, Images::gradient_, Images::mask_, Images::p_, Images::paired_;
    using Images::fetch, Images::is_between, Images::keep, Images::pixel_near;
    using Images::pixels_, Images::row_begin_, Images::row_end_, Images::sample_, Images::thread_, Images::threads_;
    using Images::window_begin_, Images::window_end_;
    using Fields = SumFields<kAdditive, kMasked>;
    using Memory = StripMemory<T, kColumns, kGradient, kMasked>;
    using RecordA = DerivativesA<T, kColumns>;
    using RecordB = DerivativesB<T, kColumns>;
    // A thread's reference moves where its distance from the latest row's mean exceeds 4 standard deviations.
    static constexpr int kFarSquared = 16;
    static constexpr T kLargest = std::numeric_limits<T>::max();
    static constexpr int kRowsInSingle = 16;  // rows whose deficits are summed in T

  public:
    TWOSTAGE_DEVICE StripRun(const StripProblem<T>& problem, int strip, int segment, std::int64_t plane, int role)
        : Images(problem, strip, segment, plane, role) {
        map_width_ = p_.width - 2 * p_.lead;
        map_plane_ = plane * (p_.height - 2 * p_.lead) * map_width_;
        writes_ = columns_.pixel_end - columns_.pixel_begin - kColumns * thread_;
        record_shift_ = (columns_.pixel_begin - columns_.base - kHalf) / kColumns;
        unsigned char* memory = dynamic_shared_memory() + Memory::pixel_bytes(threads_);
        a_ = reinterpret_cast<RecordA*>(memory);
        b_ = reinterpret_cast<RecordB*>(memory + Memory::a_bytes(threads_));
    }

    TWOSTAGE_DEVICE BlockSums run(const Window<T>& window) {
        start(window);
        const int image_end = window_end_ + kHalf;
        const int stop = kGradient ? row_end_ + kTaps : image_end;
        for (int row = window_begin_ - kHalf; row < stop; ++row) {
            fetch(row + 1, image_end);
            if constexpr (kGradient) {
                if (row - kHalf - 1 >= window_begin_) finish_pixels(row);
            }
            if (row < image_end)
                score_windows(row);
            else if constexpr (kGradient)
                publish(row, {});
            keep(row + 1, image_end);
            __syncthreads();
        }
        return {deficit_ + static_cast<double>(deficit_of_rows_), difference_};
    }

  private:
    TWOSTAGE_DEVICE void start(const Window<T>& window) {
        window_ = window;
        scored_ = 0;
        for (int column = 0; column < kColumns; ++column) {
            const int at = window_column(column);
            const bool scored = is_between(at, columns_.window_begin, columns_.window_end);
            if (scored) scored_ |= 1u << column;
            counted_[column] = scored && is_between(at, columns_.pixel_begin, columns_.pixel_end) ? T(1) : T(0);
        }
        for (int field = 0; field < Fields::kCount; ++field)
            for (int column = 0; column < kColumns; ++column) sums_[column][field].clear();
        if constexpr (kGradient) {
            for (int field = 0; field < kDerivativeFields; ++field)
                for (int column = 0; column < kColumns; ++column) derivatives_[column][field].clear();
            // Beside and between the scored windows derivatives are 0.
            for (int record = thread_; record < 2 * Memory::records(threads_); record += threads_) {
                a_[record] = RecordA{};
                b_[record] = RecordB{};
            }
            const T factor = p_.window_factor, of_pixel = p_.pixel_factor;
            const bool scaled = kMasked && p_.mask_scales != nullptr && p_.upstream == nullptr;
            window_factor_ = scaled ? factor * p_.mask_scales[sample_].window : factor;
            pixel_factor_ = scaled ? of_pixel * p_.mask_scales[sample_].pixel : of_pixel;
        }
        const int first = window_begin_ - kHalf;
        about_ = pixel_near(first, columns_.base + kColumns * thread_);
        if constexpr (kGradient) gradient_about_ = pixel_near(row_begin_, columns_.pixel_begin + kColumns * thread_);
        deficit_ = 0;
        deficit_of_rows_ = 0;
        fetch(first, first + 1);
        keep(first, first + 1);
        __syncthreads();
    }

    // Sums image row `row` and scores the window row that it completes.
    TWOSTAGE_DEVICE void score_windows(int row) {
        const int slot = (row & (Memory::kRows - 1)) * Memory::row_pixels(threads_);
        T along_row[kColumns][Fields::kCount], complete[kColumns][Fields::kCount];
#pragma unroll 1
        for (bool again = !kMasked;; again = true) {
            sum_along_row<T, kColumns, kAdditive, kMasked>(pixels_ + slot + kColumns * thread_,
                                                           kMasked ? mask_ + slot + kColumns * thread_ : nullptr,
                                                           window_, about_, along_row);
            if (again) break;
            // The first row that is seen after hidden ones may be all that a window sees.
            const T before = sums_[0][Fields::kCount - 1].pending[0], here = along_row[0][Fields::kCount - 1];
            const Reference<T> far = distance(along_row);
            const bool alone = before < T(1e-3) * window_.tap(kTaps - 1) * here;
            if (!__any_sync(0xffffffffu, alone && is_far(far, least_spread(), least_spread()))) break;
            move(far);
        }
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
#pragma unroll
            for (int field = 0; field < Fields::kCount; ++field)
                complete[column][field] = sums_[column][field].add(window_, along_row[column][field]);

        T spread_x = least_spread(), spread_y = spread_x;
        if (row - kHalf >= window_begin_) {
            const Score<T> first = score_row(row, complete);
            spread_x = first.spread_x;
            spread_y = first.spread_y;
        }
        const Reference<T> far = distance(along_row);
        const bool too_far = is_far(far, spread_x, spread_y) && is_between(row, 0, p_.height);
        if (__any_sync(0xffffffffu, too_far)) move(far);
    }

    // What keeps a variance from vanishing.
    TWOSTAGE_DEVICE T least_spread() const { return kAdditive ? p_.constants.noise : p_.constants.c2; }

    // What is no number is never far.
    TWOSTAGE_DEVICE static bool is_far(Reference<T> far, T spread_x, T spread_y) {
        const T x = far.x * far.x, y = far.y * far.y;
        return (x > kFarSquared * spread_x || y > kFarSquared * spread_y) && x + y < kLargest;
    }

    // How far the mean of the latest row lies from the reference.
    TWOSTAGE_DEVICE static Reference<T> distance(const T (&along_row)[kColumns][Fields::kCount]) {
        if constexpr (!kMasked) return {along_row[0][kSumX], along_row[0][kSumY]};
        const T seen = along_row[0][Fields::kCount - 1];
        const T weight = seen > T(1e-20) ? reciprocal(seen) : T(0);
        return {weight * along_row[0][kSumX], weight * along_row[0][kSumY]};
    }

    TWOSTAGE_DEVICE void move(Reference<T> by) {
        by = moved(about_, by);
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
            move_reference<T, kAdditive, kMasked>(sums_[column], window_, by.x, by.y);
    }

    // Moves a reference and returns how far it came, which rounding makes differ from `by`.
    TWOSTAGE_DEVICE static Reference<T> moved(Reference<T>& about, Reference<T> by) {
        const Reference<T> before = about;
        const bool good = (by.x + by.y) - (by.x + by.y) == T(0);  // finite
        about = {good ? before.x + by.x : before.x, good ? before.y + by.y : before.y};
        return {about.x - before.x, about.y - before.y};
    }

    TWOSTAGE_DEVICE int window_column(int column) const { return columns_.base + kColumns * thread_ + column; }

    // Scores the window row that image row `row` completes: the scores are counted, written to the map and, with
    // gradients, handed to the other threads. Returns the first column's.
    TWOSTAGE_DEVICE Score<T> score_row(int row, const T (&sums)[kColumns][Fields::kCount]) {
        const int window_row = row - kHalf;
        Score<T> scores[kColumns];
        T coverage[kColumns], weight[kColumns];
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            coverage[column] = weight[column] = 1;
            if constexpr (kMasked) {
                coverage[column] = sums[column][Fields::kCount - 1];
                weight[column] = coverage[column] >= T(kLeastCoverage) ? reciprocal(coverage[column]) : T(0);
            }
            scores[column] = score(sums[column], weight[column]);
        }
        if (is_between(window_row, row_begin_, row_end_)) {
#pragma unroll
            for (int column = 0; column < kColumns; ++column)
                deficit_of_rows_ = multiply_add(kMasked ? counted_[column] * coverage[column] : counted_[column],
                                                scores[column].deficit, deficit_of_rows_);
            if constexpr (!kGradient) {
                if (p_.map != nullptr) write_map(window_row, scores);
            }
        }
        if ((row & (kRowsInSingle - 1)) == 0) {
            deficit_ += static_cast<double>(deficit_of_rows_);
            deficit_of_rows_ = 0;
        }
        if constexpr (kGradient) {
            if (p_.upstream != nullptr) weigh(window_row, weight, scores);
            if (scored_ != (1u << kColumns) - 1) {
#pragma unroll
                for (int column = 0; column < kColumns; ++column)
                    if (!(scored_ >> column & 1u))
                        scores[column].offset = scores[column].slope = scores[column].cross = 0;
            }
            publish(row, scores);
        }
        return scores[0];
    }

    TWOSTAGE_DEVICE Score<T> score(const T (&sums)[Fields::kCount], T weight) const {
        T means[Fields::kMask];
#pragma unroll
        for (int field = 0; field < Fields::kMask; ++field) means[field] = kMasked ? weight * sums[field] : sums[field];
        Score<T> result;
        if constexpr (kAdditive)
            result = additive_score(p_.constants, about_, means[kSumX], means[kSumY], means[kSquareA], means[kSquareB],
                                    means[kSquareC]);
        else
            result = product_score(p_.constants, about_, means[kSumX], means[kSumY], means[kSquareA], means[kSquareB]);
        if (kMasked && weight == T(0)) result.deficit = result.offset = result.slope = result.cross = 0;
        return result;
    }

    // Of the map, for the thread's first window.
    TWOSTAGE_DEVICE std::int64_t map_index(int window_row) const {
        return map_plane_ + static_cast<std::int64_t>(window_row - p_.lead) * map_width_ + (window_column(0) - p_.lead);
    }

    TWOSTAGE_DEVICE void write_map(int window_row, const Score<T> (&scores)[kColumns]) const {
        T* to = p_.map + map_index(window_row);
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
            if (counted_[column] != T(0)) to[column] = p_.highest - scores[column].deficit;
    }

    // Multiplies derivatives of scores by what comes from upstream.
    TWOSTAGE_DEVICE void weigh(int window_row, const T (&weight)[kColumns], Score<T> (&scores)[kColumns]) const {
        const T* upstream = p_.upstream + map_index(window_row);
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            const T factor = scored_ >> column & 1u ? weight[column] * upstream[column] : T(0);
            scores[column].offset *= factor;
            scores[column].slope *= factor;
            scores[column].cross *= factor;
        }
    }

    TWOSTAGE_DEVICE int record(int row) const { return (row & 1) * Memory::records(threads_) + Memory::kMargin; }

    // Hands the derivatives of the window row that `row` completes to the other threads.
    TWOSTAGE_DEVICE void publish(int row, const Score<T> (&scores)[kColumns]) {
        RecordA a;
        RecordB b;
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            a.offset[column] = scores[column].offset;
            a.slope[column] = scores[column].slope;
            b.cross[column] = scores[column].cross;
        }
        b.about = about_;
        a_[record(row) + thread_] = a;
        b_[record(row) + thread_] = b;
    }

    // Sums the derivatives that the row before left behind and writes the gradients that they complete.
    TWOSTAGE_DEVICE void finish_pixels(int row) {
        T along_row[kColumns][kDerivativeFields], complete[kColumns][kDerivativeFields];
        const int pixel_row = row - kTaps;
        const int slot = (pixel_row & (Memory::kRows - 1)) * Memory::row_pixels(threads_);
        const int first = slot + kColumns * (thread_ + record_shift_) + 2 * kHalf;  // of the row's pixels
        Pixel<T> pixels[kColumns];
        read_pixels<T, kColumns>(pixels_ + first, pixels);
        const int at = record(row - 1) + thread_ + record_shift_;
#pragma unroll 1
        for (bool again = false;; again = true) {
            sum_derivatives<T, kColumns>(a_ + at, b_ + at, window_, gradient_about_, along_row);
            // All windows of this row hold the pixel row that they complete: no better reference for their sums.
            Reference<T> far{pixels[0].x - gradient_about_.x, pixels[0].y - gradient_about_.y};
            const T change = absolute(far.x * along_row[0][kSlope]) + absolute(far.y * along_row[0][kCross]);
            const bool steep = change > p_.steep && change < kLargest && writes_ > 0;
            if (again || pixel_row < 0 || !__any_sync(0xffffffffu, steep)) break;
            if (writes_ <= 0 || (kMasked && !(mask_[first] > T(0)))) far = {0, 0};
            const Reference<T> by = moved(gradient_about_, far);
#pragma unroll
            for (int column = 0; column < kColumns; ++column) move_reference<T>(derivatives_[column], by.x, by.y);
        }
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
#pragma unroll
            for (int field = 0; field < kDerivativeFields; ++field)
                complete[column][field] = derivatives_[column][field].add(window_, along_row[column][field]);
        if (pixel_row < row_begin_) return;
        T gradients[kColumns];
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
            gradients[column] = gradient_of(pixels[column], complete[column]);
        if (pixel_factor_ != T(0)) {
#pragma unroll
            for (int column = 0; column < kColumns; ++column) {
                const T difference = pixels[column].x - pixels[column].y;
                gradients[column] += difference > T(0)   ? pixel_factor_
                                     : difference < T(0) ? -pixel_factor_
                                                         : T(0) * difference;
            }
        }
        if constexpr (kMasked) {
#pragma unroll
            for (int column = 0; column < kColumns; ++column) {
                const T mask = mask_[first + column];
                gradients[column] = mask > T(0) ? mask * gradients[column] : T(0);
            }
        }
        write_gradients(pixel_row, gradients);
    }

    // The gradient of a pixel from the sums over all windows that cover it.
    TWOSTAGE_DEVICE T gradient_of(const Pixel<T>& pixel, const T (&sums)[kDerivativeFields]) const {
        const T x = pixel.x - gradient_about_.x, y = pixel.y - gradient_about_.y;
        return window_factor_ * multiply_add(sums[kSlope], x, multiply_add(sums[kCross], y, sums[kOffset]));
    }

    TWOSTAGE_DEVICE void write_gradients(int row, const T (&gradients)[kColumns]) const {
        T* to = gradient_ + static_cast<std::int64_t>(row) * p_.width;
        if constexpr (kColumns == 2) {
            if (paired_) {
                if (writes_ > 0) *reinterpret_cast<Pixel<T>*>(to) = {gradients[0], gradients[1]};
                return;
            }
        }
#pragma unroll
        for (int column = 0; column < kColumns; ++column)
            if (column < writes_) to[column] = gradients[column];
    }

    std::int64_t map_plane_;
    int map_width_;
    RecordA* a_;  // two rows of derivatives
    RecordB* b_;
    unsigned scored_;      // bits: which of the thread's windows are scored
    T counted_[kColumns];  // 1 where the window's score counts in this strip, 0 elsewhere
    int record_shift_;     // from a thread's windows to the first that its pixels are covered by
    int writes_;           // columns from the thread's first pixel to the strip's end

    Window<T> window_;
    Reference<T> about_, gradient_about_;
    Column<T> sums_[kColumns][Fields::kCount];
    Column<T> derivatives_[kColumns][kDerivativeFields];
    T window_factor_, pixel_factor_;
    T deficit_of_rows_;
    double deficit_;
};

template <typename T, int kColumns, bool kAdditive, bool kGradient, bool kMasked>
__global__ void __launch_bounds__(kMostThreads, 1) score_strips(const StripProblem<T> problem, int window_half) {
    __shared__ double weights[kHalf + 1];
    __shared__ BlockSums sums[kMostThreads];
    std::int64_t index = blockIdx.x;
    const int strip = static_cast<int>(index % problem.strips);
    index /= problem.strips;
    const int segment = static_cast<int>(index % problem.segments);
    const std::int64_t plane = index / problem.segments;
    const int role = static_cast<int>(blockIdx.y);
    const Window<T> window = gaussian_window<T>(problem.sigma[plane / problem.channels], window_half, weights);
    StripRun<T, kColumns, kAdditive, kGradient, kMasked> run(problem, strip, segment, plane, role);
    const BlockSums own = run.run(window);
    if (problem.sums == nullptr || role != 0) return;
    const BlockSums all = sum_block(own, sums);
    if (threadIdx.x == 0) problem.sums[blockIdx.x] = all;
}

}  // namespace twostage
