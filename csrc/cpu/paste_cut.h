// One polygon's cut-out: sampled, blurred and blended row by row, as its image is walked down.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "paste_problem.h"
#include "paste_sample.h"
#include "paste_shape.h"
#include "ranges.h"
#include "simd.h"

namespace twostage {
namespace {

// Hands out pieces of a block of memory, or, without one, adds up how large it has to be.
class Workspace {
  public:
    Workspace() = default;
    explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}

    template <typename Item>
    Item* take(std::int64_t count) {
        Item* const piece = memory_ == nullptr ? nullptr : reinterpret_cast<Item*>(memory_ + used_);
        used_ += (count * static_cast<std::int64_t>(sizeof(Item)) + 63) / 64 * 64;
        return piece;
    }

    std::int64_t bytes() const { return used_; }

  private:
    char* memory_ = nullptr;
    std::int64_t used_ = 0;
};

template <typename T>
class Cut {
  public:
    Cut(const PasteProblem<T>& problem, std::int64_t polygon)
        : problem_(&problem), channels_(problem.images.channels), polygon_(polygon), sampler_(problem, polygon) {
        const PastePolygons<T>& p = problem.polygons;
        const bool noisy = p.edge_amplitude != nullptr;
        shape_ = make_shape(p.vertices + polygon * 2 * kMaxVertices, static_cast<int>(p.vertex_count[polygon]),
                            noisy ? p.edge_amplitude[polygon] : T(0), noisy ? p.edge_grain[polygon] : T(1),
                            noisy ? p.edge_seed[polygon] : 0, problem.images.height, problem.images.width);
        const T sigma = p.blur_sigma[polygon];
        // A blur reaches beyond the image where it is wider; what lies there is nothing.
        radius_ = static_cast<double>(sigma) < kSmallestBlurSigma
                      ? 0
                      : static_cast<std::int64_t>(std::ceil(static_cast<T>(kBlurExtent) * sigma));
        level_ = p.strength == nullptr ? T(1) : p.strength[polygon];
        mode_ = p.blend_mode == nullptr ? BlendMode::kNormal : static_cast<BlendMode>(p.blend_mode[polygon]);
        const PixelBox& box = shape_.box;
        touched_ = box;
        if (box.empty() || !(level_ > 0)) {
            touched_ = {0, 0, 0, 0};
            return;
        }
        touched_.row_begin = larger(box.row_begin - radius_, 0);
        touched_.row_end = smaller(box.row_end + radius_, problem.images.height);
        touched_.column_begin = larger(box.column_begin - radius_, 0);
        touched_.column_end = smaller(box.column_end + radius_, problem.images.width);
        next_row_ = box.row_begin;
    }

    const PixelBox& touched() const { return touched_; }

    // Sets the cut up in the workspace, or, while that is being measured, only takes its share.
    void lay_out(Workspace& workspace) {
        const std::int64_t lanes = kLanes<T>, width = touched_.column_end - touched_.column_begin;
        stride_ = (width + lanes - 1) / lanes * lanes;
        sharp_stride_ = stride_ + 2 * radius_;
        window_ = workspace.take<T>(2 * radius_ + 1);
        ring_ = workspace.take<T>(ring_rows() * fields() * stride_);
        extents_ = workspace.take<Run>(ring_rows());
        sharp_ = radius_ == 0 ? ring_ : workspace.take<T>(fields() * sharp_stride_);
        const std::int64_t rows = shape_.box.row_end - shape_.box.row_begin;
        straight_runs_ = workspace.take<Run>(rows * kMostStraightRuns);
        straight_counts_ = workspace.take<std::int64_t>(rows);
        noisy_runs_ = workspace.take<Run>(noisy() ? most_runs(shape_) : 0);
        shape_memory_ = workspace.take<char>(row_memory(shape_));
        taps_ = workspace.take<Tap>(ring_rows());
        blurred_ = workspace.take<T>(fields() * stride_);
        sampler_.lay_out(workspace, shape_.box.column_end - shape_.box.column_begin);
        if (window_ != nullptr) fill_window();
    }

    // Asks for the source's pixels ahead of their use: their rows are too short for the processor to foresee. Noise
    // moves the edges by little: they are asked for as if there were none.
    void fetch_source() {
        Shape<T> straight = shape_;
        straight.noise.reach = 0;
        for (std::int64_t row = shape_.box.row_begin; row < shape_.box.row_end; ++row) {
            const std::int64_t index = row - shape_.box.row_begin;
            Run* const runs = straight_runs_ + index * kMostStraightRuns;
            straight_counts_[index] = row_runs(straight, row, nullptr, runs);
            for (std::int64_t i = 0; i < straight_counts_[index]; ++i) sampler_.fetch(row, runs[i]);
        }
    }

    // Makes ready what is pasted into `row`, and returns its columns. Rows come in order.
    Run advance(std::int64_t row) {
        tap_count_ = 0;
        columns_ = {touched_.column_end, touched_.column_begin};
        if (row < touched_.row_begin || row >= touched_.row_end) return columns_;
        const std::int64_t last = smaller(row + radius_ + 1, shape_.box.row_end);
        while (next_row_ < last) cut_row(next_row_++);
        for (std::int64_t from = larger(row - radius_, shape_.box.row_begin); from < last; ++from) {
            const std::int64_t slot = (from - shape_.box.row_begin) % ring_rows();
            const Run extent = extents_[slot];
            if (extent.begin >= extent.end) continue;
            taps_[tap_count_++] = {ring_ + slot * fields() * stride_, window_[from - row + radius_]};
            columns_ = {smaller(columns_.begin, extent.begin), larger(columns_.end, extent.end)};
        }
        return columns_;
    }

    // Blends what `advance` made ready into the row. Pixels where it is fully transparent keep their bits.
    void paste(T* const* image_row, T* opacity_row) const {
        if (tap_count_ == 0) return;
        add_up({taps_, tap_count_, stride_}, columns_, blurred_);
        if (mode_ == BlendMode::kNormal)
            paste_mode<BlendMode::kNormal>(image_row, opacity_row);
        else if (mode_ == BlendMode::kMultiply)
            paste_mode<BlendMode::kMultiply>(image_row, opacity_row);
        else if (mode_ == BlendMode::kScreen)
            paste_mode<BlendMode::kScreen>(image_row, opacity_row);
        else if (mode_ == BlendMode::kDarken)
            paste_mode<BlendMode::kDarken>(image_row, opacity_row);
        else if (mode_ == BlendMode::kLighten)
            paste_mode<BlendMode::kLighten>(image_row, opacity_row);
        else
            paste_mode<BlendMode::kGrainMerge>(image_row, opacity_row);
    }

  private:
    struct Tap {
        const T* row;
        T weight;
    };

    bool noisy() const { return shape_.noise.reach > 0; }
    std::int64_t fields() const { return channels_ + 1; }  // the channels, then the mask
    std::int64_t ring_rows() const { return 2 * radius_ + 1; }

    void fill_window() {
        const double sigma = static_cast<double>(problem_->polygons.blur_sigma[polygon_]);
        double sum = 0;
        for (std::int64_t d = -radius_; d <= radius_; ++d)
            sum += radius_ == 0 ? 1 : std::exp(-0.5 * static_cast<double>(d * d) / (sigma * sigma));
        for (std::int64_t d = -radius_; d <= radius_; ++d) {
            const double weight =
                radius_ == 0 ? 1 : std::exp(-0.5 * static_cast<double>(d * d) / (sigma * sigma)) / sum;
            window_[d + radius_] = static_cast<T>(weight);
        }
    }

    // Samples a row of the cut-out and blurs it along itself, into its place in the ring.
    void cut_row(std::int64_t row) {
        const std::int64_t index = row - shape_.box.row_begin, slot = index % ring_rows();
        T* const to = ring_ + slot * fields() * stride_;
        const Run* const runs = noisy() ? noisy_runs_ : straight_runs_ + index * kMostStraightRuns;
        const std::int64_t count =
            noisy() ? row_runs(shape_, row, shape_memory_, noisy_runs_) : straight_counts_[index];
        if (count == 0) {
            extents_[slot] = {0, 0};
            return;
        }
        const std::int64_t origin = touched_.column_begin;
        extents_[slot] = {larger(runs[0].begin - radius_, touched_.column_begin),
                          smaller(runs[count - 1].end + radius_, touched_.column_end)};
        std::memset(to, 0, static_cast<std::size_t>(fields() * stride_) * sizeof(T));
        T* const sharp = radius_ == 0 ? to : sharp_;
        if (radius_ != 0) std::memset(sharp, 0, static_cast<std::size_t>(fields() * sharp_stride_) * sizeof(T));
        for (std::int64_t i = 0; i < count; ++i) {
            T* const first = sharp + runs[i].begin - origin + radius_;
            const std::int64_t length = runs[i].end - runs[i].begin;
            sampler_.sample(row, runs[i].begin, length, first, sharp_stride_);
            T* const mask = first + channels_ * sharp_stride_;
            for (std::int64_t x = 0; x < length; ++x) mask[x] = T(1);
        }
        if (radius_ == 0) return;
        for (std::int64_t tap = 0; tap < ring_rows(); ++tap) taps_[tap] = {sharp + tap, window_[tap]};
        add_up({taps_, ring_rows(), sharp_stride_}, extents_[slot], to);
    }

    // Fields of a row that are sums over taps: each tap's fields lie `stride` apart.
    struct Taps {
        const Tap* taps;
        std::int64_t count, stride;
    };

    // Writes the sums for `columns` of the target, in whole vectors, to rows `stride_` apart.
    void add_up(const Taps& taps, Run columns, T* to) const {
        const std::int64_t origin = touched_.column_begin;
        const Run places{(columns.begin - origin) / kLanes<T> * kLanes<T>, columns.end - origin};
        if (channels_ == 3) return add_up_fields<4>(taps, 0, places, to);
        if (channels_ == 1) return add_up_fields<2>(taps, 0, places, to);
        for (std::int64_t field = 0; field < fields(); ++field) add_up_fields<1>(taps, field, places, to);
    }

    // Those of kFields fields together: one after the other, every sum would wait for itself.
    template <int kFields>
    void add_up_fields(const Taps& taps, std::int64_t first, Run places, T* to) const {
        for (std::int64_t x = places.begin; x < places.end; x += kLanes<T>) {
            Vector<T> sums[kFields]{};
            for (std::int64_t tap = 0; tap < taps.count; ++tap) {
                const T* const from = taps.taps[tap].row + first * taps.stride + x;
                const T weight = taps.taps[tap].weight;
                repeat<kFields>([&](int field) TWOSTAGE_INLINE_LAMBDA {
                    sums[field] += weight * load(from + field * taps.stride);
                });
            }
            repeat<kFields>([&](int field)
                                TWOSTAGE_INLINE_LAMBDA { store(to + (first + field) * stride_ + x, sums[field]); });
        }
    }

    template <BlendMode kMode>
    void paste_mode(T* const* image_row, T* opacity_row) const {
        const std::int64_t origin = touched_.column_begin, end = columns_.end - origin;
        for (std::int64_t x = (columns_.begin - origin) / kLanes<T> * kLanes<T>; x < end; x += kLanes<T>) {
            const std::int64_t left = touched_.column_end - origin - x;
            const Vector<T> mask = load(blurred_ + channels_ * stride_ + x), alpha = mask * level_,
                            clear = T(1) - alpha;
            const auto seen = alpha > Vector<T>{};
            for (std::int64_t channel = 0; channel < channels_; ++channel) {
                T* const pixels = image_row[channel] + origin + x;
                const Vector<T> below = load_some(pixels, left), cut = load(blurred_ + channel * stride_ + x);
                const Vector<T> above =
                    kMode == BlendMode::kNormal ? cut * level_ : mixed<kMode>(below, cut / mask) * alpha;
                store_some<T>(pixels, seen ? below * clear + above : below, left);
            }
            T* const opacity = opacity_row + origin + x;
            const Vector<T> before = load_some(opacity, left), after = before * clear + alpha;
            const Vector<T> one = Vector<T>{} + T(1);
            store_some<T>(opacity, seen ? (after > one ? one : after) : before, left);
        }
    }

    template <BlendMode kMode>
    TWOSTAGE_INLINE Vector<T> mixed(Vector<T> below, Vector<T> above) const {
        const T low = static_cast<T>(problem_->images.low), range = static_cast<T>(problem_->images.high) - low;
        const Vector<T> b = (below - low) / range, a = (above - low) / range, one = Vector<T>{} + T(1);
        Vector<T> result;
        if constexpr (kMode == BlendMode::kMultiply) {
            result = b * a;
        } else if constexpr (kMode == BlendMode::kScreen) {
            result = one - (one - b) * (one - a);
        } else if constexpr (kMode == BlendMode::kDarken) {
            result = b < a ? b : a;
        } else if constexpr (kMode == BlendMode::kLighten) {
            result = b > a ? b : a;
        } else {
            const Vector<T> sum = b + a - T(0.5);
            result = sum > Vector<T>{} ? (sum < one ? sum : one) : Vector<T>{};
        }
        return low + result * range;
    }

    const PasteProblem<T>* problem_;
    std::int64_t channels_, polygon_;
    SourceSampler<T> sampler_;
    Shape<T> shape_;
    PixelBox touched_;
    std::int64_t radius_, next_row_ = 0, stride_ = 0, sharp_stride_ = 0;
    T level_;
    BlendMode mode_;
    T* window_ = nullptr;  // [2 radius + 1]
    T* ring_ = nullptr;    // rows blurred along themselves: [2 radius + 1, fields, stride]
    Run* extents_ = nullptr;
    T* sharp_ = nullptr;            // a row before its blur, `radius_` zeros on either side: [fields, sharp_stride]
    Run* straight_runs_ = nullptr;  // of each row of the box, as `fetch_source` finds them
    std::int64_t* straight_counts_ = nullptr;
    Run* noisy_runs_ = nullptr;  // of one row
    void* shape_memory_ = nullptr;
    Tap* taps_ = nullptr;
    T* blurred_ = nullptr;  // a row blurred both ways: [fields, stride]
    std::int64_t tap_count_ = 0;
    Run columns_{0, 0};
};

}  // namespace
}  // namespace twostage
