// Cuts the images into tiles, runs them on the best instruction set and adds up what they return.
#include "../similarity.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "kernel_choice.h"
#include "threads.h"
#include "tile.h"

namespace twostage {

namespace {

// Tiles depend on the images' size alone, so the sums do not depend on the number of threads. Tall ones work fewer rows
// twice, short ones keep more threads busy where there are few.
constexpr std::int64_t kTallTileRows = 512, kShortTileRows = 256, kTileColumns = 512, kFewTiles = 8;
// Below this many pixels waking a second thread takes longer than the work.
constexpr std::int64_t kPixelsPerThread = 16384;

std::int64_t parts_of(std::int64_t length, std::int64_t most) { return (length + most - 1) / most; }

std::vector<Tile> cut_into_tiles(const SimilarityParams& p) {
    const std::int64_t planes = p.batch * p.channels, columns = parts_of(p.width, kTileColumns);
    const bool few = planes * columns * parts_of(p.height, kTallTileRows) < kFewTiles;
    const std::int64_t rows = parts_of(p.height, few ? kShortTileRows : kTallTileRows);
    std::vector<Tile> tiles;
    tiles.reserve(static_cast<std::size_t>(planes * rows * columns));
    for (std::int64_t plane = 0; plane < planes; ++plane)
        for (std::int64_t row = 0; row < rows; ++row)
            for (std::int64_t column = 0; column < columns; ++column)
                tiles.push_back({plane, p.height * row / rows, p.height * (row + 1) / rows, p.width * column / columns,
                                 p.width * (column + 1) / columns});
    return tiles;
}

// Normalised Gaussian of each sample, centred. Weights too small to change a sum are 0: subnormal ones are slow.
template <typename T>
std::vector<T> gaussian_windows(const SimilarityParams& p, const T* sigma) {
    const int half = p.window_size / 2;
    std::vector<T> windows(static_cast<std::size_t>(p.batch * p.window_size));
    std::vector<double> weights(static_cast<std::size_t>(half) + 1);
    for (std::int64_t sample = 0; sample < p.batch; ++sample) {
        const double width = static_cast<double>(sigma[sample]);
        double sum = 0;
        for (int k = 0; k <= half; ++k) {
            const double distance = k / width;
            weights[static_cast<std::size_t>(k)] = std::exp(-0.5 * distance * distance);
            sum += (k ? 2 : 1) * weights[static_cast<std::size_t>(k)];
        }
        T* window = windows.data() + sample * p.window_size + half;
        for (int k = 0; k <= half; ++k) {
            const double weight = weights[static_cast<std::size_t>(k)] / sum;
            window[k] = window[-k] = weight < 1e-30 ? T(0) : static_cast<T>(weight);
        }
    }
    return windows;
}

double highest_score(const SimilarityParams& p) { return p.form == Form::kAdditive ? p.alpha + p.beta + p.gamma : 1.0; }

// `sums` are the tiles'; tiles of one sample lie together.
template <typename T>
void reduce(const SimilarityParams& p, const SimilarityBuffers<T>& buffers, const std::vector<TileSums>& sums,
            MaskScale<double> without_mask, Reduction reduction) {
    const double highest = highest_score(p);
    const std::size_t tiles = p.batch ? sums.size() / static_cast<std::size_t>(p.batch) : 0;
    double deficit = 0, difference = 0;
    for (std::int64_t sample = 0; sample < p.batch; ++sample) {
        TileSums sum;
        for (std::size_t tile = 0; tile < tiles; ++tile) {
            const TileSums& part = sums[static_cast<std::size_t>(sample) * tiles + tile];
            sum.deficit += part.deficit;
            sum.difference += part.difference;
        }
        MaskScale<double> scale = without_mask;
        if (buffers.mask != nullptr) scale = {buffers.mask_scales[sample].window, buffers.mask_scales[sample].pixel};
        if (reduction == Reduction::kSample)
            buffers.value[sample] = static_cast<T>(highest - sum.deficit * scale.window);
        deficit += sum.deficit * scale.window;
        difference += sum.difference * scale.pixel;
    }
    if (p.batch == 0) deficit = std::numeric_limits<double>::quiet_NaN();
    if (reduction == Reduction::kMean) buffers.value[0] = static_cast<T>(highest - deficit);
    if (reduction == Reduction::kLoss)
        buffers.value[0] =
            static_cast<T>((1 - p.l1_weight) * ((1 - highest) + deficit) + p.l1_weight * difference / p.l1_unit);
}

struct FreeScratch {
    void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

void* thread_scratch(std::int64_t bytes) {
    static thread_local std::unique_ptr<void, FreeScratch> memory;
    static thread_local std::int64_t size = 0;
    if (bytes > size) {
        const std::int64_t rounded = (bytes + 4095) / 4096 * 4096;
        size = 0;
        memory.reset(std::aligned_alloc(64, static_cast<std::size_t>(rounded)));
        if (!memory) throw std::bad_alloc();
        size = rounded;
    }
    return memory.get();
}

template <typename T>
void similarity_cpu(const SimilarityParams& params, const SimilarityBuffers<T>& buffers, Reduction reduction,
                    int threads, int instruction_set) {
    const std::int64_t cut = params.same_padding ? 0 : params.window_size - 1;
    const std::int64_t map_height = params.height - cut, map_width = params.width - cut;
    const double channels = static_cast<double>(params.channels);
    const double in_mean = reduction == Reduction::kSample ? 1 : static_cast<double>(params.batch);
    // What a sum over windows and one over pixels is multiplied by in a mean without a mask.
    const MaskScale<double> whole{1 / (in_mean * channels * static_cast<double>(map_height * map_width)),
                                  1 / (in_mean * channels * static_cast<double>(params.height * params.width))};
    const bool masked = buffers.mask != nullptr, loss = reduction == Reduction::kLoss;
    const double window_factor = loss ? params.l1_weight - 1 : 1;
    const double pixel_factor = loss ? params.l1_weight / params.l1_unit : 0;
    const std::vector<T> gaussians = gaussian_windows(params, buffers.sigma);
    const bool per_map = masked || reduction == Reduction::kMap;
    const TileProblem<T> problem{params,
                                 buffers,
                                 map_height,
                                 map_width,
                                 gaussians.data(),
                                 per_map ? window_factor : window_factor * whole.window,
                                 masked ? pixel_factor : pixel_factor * whole.pixel};
    const std::vector<Tile> tiles = cut_into_tiles(params);
    std::vector<TileSums> sums(tiles.size());
    const auto run_tile = kernel_for<RunTile<T>>(instruction_set, TWOSTAGE_KERNELS(run_tile));
    const std::int64_t pixels = params.batch * params.channels * params.height * params.width;
    const std::int64_t useful = 1 + pixels / kPixelsPerThread;
    parallel_for(static_cast<std::int64_t>(tiles.size()), {threads, useful}, [&](std::int64_t tile) {
        sums[static_cast<std::size_t>(tile)] = run_tile(problem, tiles[static_cast<std::size_t>(tile)]);
    });
    if (buffers.value != nullptr) reduce(params, buffers, sums, whole, reduction);
}

template void similarity_cpu<float>(const SimilarityParams&, const SimilarityBuffers<float>&, Reduction, int, int);
template void similarity_cpu<double>(const SimilarityParams&, const SimilarityBuffers<double>&, Reduction, int, int);

}  // namespace twostage
