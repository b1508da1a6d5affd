// Checks what a kernel cannot, cuts the images into tiles and launches.
#include "device.h"
#include "paste.h"
#include "paste_tile.h"

namespace twostage {

namespace {

void require_at_most(std::int64_t value, std::int64_t most, const char* what) {
    if (value > most)
        throw std::runtime_error(std::string("the CUDA kernels of paste_defects take ") + what + " of at most " +
                                 std::to_string(most) + ", not " + std::to_string(value));
}

void require_supported(const PasteImages& images) {
    require_at_most(images.channels, kMostCudaChannels, "a number of channels");
    require_at_most(images.height, kLongestCudaTarget, "a target height");
    require_at_most(images.width, kLongestCudaTarget, "a target width");
    if (images.layout != nullptr) return;
    const int size = bytes_of(images.source_type);
    require_at_most(images.source_height, kLongestCudaSource, "a source height");
    require_at_most(images.source_width, kLongestCudaSource, "a source width");
    require_at_most(images.source_stride[2] * size, kLongestCudaStep, "bytes between two rows of a source");
    require_at_most(images.source_stride[3] * size, kLongestCudaStep, "bytes between two columns of a source");
}

// How whole tiles can be copied in pieces of 16 bytes: planes by their rows, rows of whole pixels at once.
template <typename T>
void plan_copies(PasteProblem<T>& problem) {
    const PasteImages& images = problem.images;
    const std::int64_t* const stride = images.image_stride;
    const std::int64_t size = bytes_of(images.type);
    const bool planes = stride[3] == 1;
    if (!planes && (stride[1] != 1 || stride[3] != images.channels || problem.groups > 1)) return;
    const auto fits = [size](std::int64_t elements) { return elements * size % 16 == 0; };
    const bool aligned =
        (reinterpret_cast<std::uintptr_t>(images.target) | reinterpret_cast<std::uintptr_t>(images.out)) % 16 == 0;
    // The step between images, or between channels, matters where there are several.
    if (!aligned || !fits(stride[2]) || (images.batch > 1 && !fits(stride[0])) ||
        (planes && images.channels > 1 && !fits(stride[1])))
        return;
    problem.planes = planes;
    problem.row_bytes = static_cast<int>(kTileColumns * size * (planes ? 1 : images.channels));
    while ((16 << problem.row_lanes_log2) < problem.row_bytes && problem.row_lanes_log2 < 5) ++problem.row_lanes_log2;
}

}  // namespace

template <typename T>
void paste_defects_cuda(const PasteImages& images, const PastePolygons<T>& polygons, T* opacity, int device,
                        void* stream) {
    if (images.batch == 0) return;
    require_supported(images);
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    PasteProblem<T> problem{};
    problem.images = images;
    problem.polygons = polygons;
    problem.opacity = opacity;
    problem.slots = polygons.count / images.batch;
    problem.rows = static_cast<int>((images.height + kTileRows - 1) / kTileRows);
    problem.columns = static_cast<int>((images.width + kTileColumns - 1) / kTileColumns);
    problem.groups = static_cast<int>((images.channels + kMostPasteChannels - 1) / kMostPasteChannels);
    problem.in_place = images.out == images.target;
    plan_copies(problem);
    int layers = 0;
    check_cuda(cudaDeviceGetAttribute(&layers, cudaDevAttrMaxGridDimZ, device), "cudaDeviceGetAttribute");
    launch_paste(problem, layers, stream);
}

template void paste_defects_cuda<float>(const PasteImages&, const PastePolygons<float>&, float*, int, void*);
template void paste_defects_cuda<double>(const PasteImages&, const PastePolygons<double>&, double*, int, void*);

}  // namespace twostage
