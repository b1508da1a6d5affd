// The unit of work of the paste kernels: one block pastes all polygons of an image into one tile of it.
#pragma once

#include "../paste.h"
#include "device.h"

namespace twostage {

// A warp's lanes lie side by side in a row, each with as many rows as a thread has. A blur samples what lies around a
// tile once more: larger tiles would do less of that, but a thread could not keep their sums in registers.
constexpr int kTileColumns = 32, kTileRows = 32, kPasteThreads = 256, kPasteWarps = kPasteThreads / 32;
constexpr int kRowsPerThread = kTileRows / kPasteWarps;
// Channels of a block; images with more have several blocks for each tile.
constexpr int kMostPasteChannels = 4;
constexpr int kLargestBlurRadius = static_cast<int>(kBlurExtent * kMaxBlurSigma);

constexpr __host__ __device__ int bytes_of(PixelType type) {
    return type == PixelType::kUint8 ? 1 : type == PixelType::kFloat32 ? 4 : type == PixelType::kFloat64 ? 8 : 2;
}

template <typename T>
struct PasteProblem {
    PasteImages images;
    PastePolygons<T> polygons;
    T* opacity;
    std::int64_t first_image;  // of the launch
    std::int64_t slots;        // polygons of every image, without image_index
    int rows, columns;         // of tiles
    int groups;                // of channels
    // Of a row of a whole tile whose pixels lie side by side; 0 where it is copied otherwise. So many lanes share it.
    int row_bytes, row_lanes_log2;
    bool planes;  // every channel has such rows
    bool in_place;
};

struct Tile {
    std::int64_t image;
    int row_begin, row_end, column_begin, column_end;  // within the image
    int channel;                                       // the first
    int channels;
};

// The block's dynamic shared memory: the weights of a window between zeros, the tile and its opacity, rows of the
// cut-out. Few rows at once mean many barriers, much memory means few blocks at once.
template <typename T>
struct PasteMemory {
    static constexpr int kLead = 4;                              // zeros before the weights
    static constexpr int kWindow = 2 * kLargestBlurRadius + 16;  // with all zeros, in numbers
    static constexpr int kRowBytes = sizeof(T) == 4 ? 28 * 1024 : 18 * 1024 + 512;
    static constexpr __host__ __device__ std::size_t bytes(int channels) {
        return sizeof(T) * static_cast<std::size_t>(kWindow + (channels + 1) * kTileRows * kTileColumns) + kRowBytes;
    }
};

// `layers` are the most that a grid has.
template <typename T>
void launch_paste(const PasteProblem<T>& problem, std::int64_t layers, void* stream);

}  // namespace twostage
