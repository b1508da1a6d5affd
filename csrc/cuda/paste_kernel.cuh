// The paste kernel. Included by one translation unit for each precision.
#pragma once

#include "paste_blur.cuh"
#include "paste_image.cuh"

namespace twostage {

// At once on a multiprocessor; that decides how many registers a thread may have.
template <typename T, int kChannels>
constexpr int kPasteBlocks = sizeof(T) == 8                    ? 1
                             : kChannels == kMostPasteChannels ? 2
                                                               : 3;

// A kernel for fewer channels than kMostPasteChannels is for images of exactly so many; that for kMostPasteChannels
// takes all others, in groups.
template <typename T, int kChannels>
TWOSTAGE_DEVICE Tile tile_of(const PasteProblem<T>& problem) {
    const int groups = problem.groups, x = static_cast<int>(blockIdx.x);
    const int group = groups == 1 ? 0 : x % groups;
    const int column = (groups == 1 ? x : x / groups) * kTileColumns, row = static_cast<int>(blockIdx.y) * kTileRows;
    const PasteImages& images = problem.images;
    const int channel = group * kMostPasteChannels;
    return {problem.first_image + blockIdx.z,
            row,
            min(row + kTileRows, static_cast<int>(images.height)),
            column,
            min(column + kTileColumns, static_cast<int>(images.width)),
            channel,
            kChannels < kMostPasteChannels ? kChannels : min(kChannels, static_cast<int>(images.channels) - channel)};
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPasteThreads, kPasteBlocks<T, kChannels>)
    paste_tiles(const PasteProblem<T> problem) {
    using Memory = PasteMemory<T>;
    __shared__ Cut<T> cuts[2];  // in turns: the next is made while threads still look at the one before
    __shared__ unsigned found[find::kAtOnce / 32];
    constexpr std::size_t kLeast = 64 * 1024;  // that a block may have on the GPUs that this is for
    static_assert(Memory::bytes(kChannels) + sizeof(cuts) + sizeof(found) <= kLeast, "too much shared memory");
    T* const window = reinterpret_cast<T*>(dynamic_shared_memory());
    T* const values = window + Memory::kWindow;
    unsigned char* const rows = reinterpret_cast<unsigned char*>(values + (kChannels + 1) * kTileRows * kTileColumns);
    const Tile tile = tile_of<T, kChannels>(problem);
    TileImage<T, kChannels> image(problem, tile, values);

    const bool in_slots = problem.polygons.image_index == nullptr;
    const std::int64_t begin = in_slots ? tile.image * problem.slots : 0;
    const std::int64_t end = in_slots ? begin + problem.slots : problem.polygons.count;
    int pasted = 0;
    for (std::int64_t first = begin; first < end; first += find::kAtOnce) {
        if (first != begin) __syncthreads();
        const int words = find_polygons(problem, tile, first, end, found);
        for (int word = 0; word < words; ++word) {
            for (unsigned left = found[word]; left != 0; left &= left - 1) {
                if (pasted == 0) image.load();
                Cut<T>& cut = cuts[pasted++ & 1];
                cut.set(problem, first + 32 * word + __ffs(static_cast<int>(left)) - 1, tile);
                __syncthreads();
                T sums[kRowsPerThread][kChannels + 1];
#pragma unroll
                for (int j = 0; j < kRowsPerThread; ++j)
#pragma unroll
                    for (int field = 0; field <= kChannels; ++field) sums[j][field] = 0;
                if (threadIdx.x < 32 && cut.radius > 0) fill_window(cut.sigma, cut.radius, window);
                Blur<T, kChannels + 1>(cut, tile, window, rows).add_up(sums);
                image.blend(sums, cut.level, cut.mode);
            }
        }
    }
    const bool touched = pasted > 0;
    image.store_opacity(touched);
    if (!touched && problem.in_place) return;
    const bool whole =
        tile.column_end - tile.column_begin == kTileColumns && tile.row_end - tile.row_begin == kTileRows;
    if (!touched && problem.row_bytes > 0 && whole)
        copy_rows(problem, tile);
    else
        image.store(touched);
}

// One launch, unless the batch has more images than a grid may have layers.
template <typename T, int kChannels>
void launch_kernel(PasteProblem<T> problem, std::int64_t layers, void* stream) {
    const std::int64_t batch = problem.images.batch;
    for (; problem.first_image < batch; problem.first_image += layers) {
        const std::int64_t left = batch - problem.first_image;
        const dim3 grid(static_cast<unsigned>(problem.columns * problem.groups), static_cast<unsigned>(problem.rows),
                        static_cast<unsigned>(left < layers ? left : layers));
        launch("paste_defects", paste_tiles<T, kChannels>, grid, dim3(kPasteThreads), PasteMemory<T>::bytes(kChannels),
               static_cast<cudaStream_t>(stream), problem);
    }
}

// Most images have one channel or three. For others in float, and for all in double, one kernel does.
template <typename T>
void launch_paste(const PasteProblem<T>& problem, std::int64_t layers, void* stream) {
    if constexpr (sizeof(T) == 4) {
        if (problem.images.channels == 1) return launch_kernel<T, 1>(problem, layers, stream);
        if (problem.images.channels == 3) return launch_kernel<T, 3>(problem, layers, stream);
    }
    launch_kernel<T, kMostPasteChannels>(problem, layers, stream);
}

}  // namespace twostage
