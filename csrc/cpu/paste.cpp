// Sorts the polygons by image and runs the images on the best instruction set.
#include "../paste.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernel_choice.h"
#include "paste_problem.h"
#include "threads.h"

namespace twostage {

namespace {

// Below this many values to copy waking a second thread takes longer than the work.
constexpr std::int64_t kValuesPerThread = 65536;

template <typename T>
bool within(const T* values, std::int64_t index, double lowest, double highest) {
    return values == nullptr ||
           (static_cast<double>(values[index]) >= lowest && static_cast<double>(values[index]) <= highest);
}

template <typename T>
bool finite(const T* values, std::int64_t count) {
    if (values == nullptr) return true;
    for (std::int64_t i = 0; i < count; ++i)
        if (!std::isfinite(values[i])) return false;
    return true;
}

template <typename T>
bool usable(const PasteImages& images, const PastePolygons<T>& p, std::int64_t i) {
    const std::int64_t vertices = p.vertex_count[i];
    if (vertices < 3 || vertices > kMaxVertices) return false;
    if (p.image_index != nullptr && (p.image_index[i] < 0 || p.image_index[i] >= images.batch)) return false;
    if (p.source_index[i] < 0 || p.source_index[i] >= images.sources) return false;
    if (p.blend_mode != nullptr && (p.blend_mode[i] < 0 || p.blend_mode[i] > static_cast<int>(BlendMode::kGrainMerge)))
        return false;
    return source_image(images, p.source_index[i]).pixels != nullptr &&
           finite(p.vertices + i * 2 * kMaxVertices, 2 * vertices) && finite(p.transform + i * 6, 6) &&
           within(p.blur_sigma, i, 0, kMaxBlurSigma) && within(p.strength, i, 0, 1) &&
           within(p.edge_amplitude, i, 0, kMaxEdgeAmplitude) &&
           within(p.edge_grain, i, 1, std::numeric_limits<double>::max()) &&
           finite(p.color_gain == nullptr ? nullptr : p.color_gain + i * images.channels, images.channels) &&
           finite(p.color_offset == nullptr ? nullptr : p.color_offset + i * images.channels, images.channels);
}

// Fills `order` and `first` of the problem. Returns the number of unusable polygons.
template <typename T>
std::int64_t sort_by_image(const PasteImages& images, const PastePolygons<T>& polygons,
                           std::vector<std::int64_t>& order, std::vector<std::int64_t>& first) {
    const std::int64_t slots = images.batch > 0 ? polygons.count / images.batch : 0;
    std::int64_t unusable = 0;
    std::vector<std::int64_t> owner(static_cast<std::size_t>(polygons.count), -1);
    first.assign(static_cast<std::size_t>(images.batch) + 1, 0);
    for (std::int64_t i = 0; i < polygons.count; ++i) {
        const std::size_t place = static_cast<std::size_t>(i);
        if (polygons.vertex_count[i] == 0) continue;
        if (!usable(images, polygons, i)) {
            ++unusable;
            continue;
        }
        owner[place] = polygons.image_index != nullptr ? polygons.image_index[i] : i / slots;
        if (owner[place] < images.batch) ++first[static_cast<std::size_t>(owner[place]) + 1];
    }
    for (std::size_t image = 0; image + 1 < first.size(); ++image) first[image + 1] += first[image];
    order.resize(static_cast<std::size_t>(first.back()));
    std::vector<std::int64_t> next(first.begin(), first.end() - 1);
    for (std::int64_t i = 0; i < polygons.count; ++i) {
        const std::int64_t image = owner[static_cast<std::size_t>(i)];
        if (image >= 0 && image < images.batch)
            order[static_cast<std::size_t>(next[static_cast<std::size_t>(image)]++)] = i;
    }
    return unusable;
}

}  // namespace

std::int64_t pixel_size(PixelType type) {
    switch (type) {
        case PixelType::kUint8:
            return 1;
        case PixelType::kFloat16:
        case PixelType::kBfloat16:
            return 2;
        case PixelType::kFloat32:
            return 4;
        default:
            return 8;
    }
}

SourceImage source_image(const PasteImages& images, std::int64_t source) {
    const auto* pixels = static_cast<const char*>(images.source);
    if (images.layout == nullptr) {
        const std::int64_t* stride = images.source_stride;
        return {pixels + source * stride[0] * pixel_size(images.source_type),
                images.source_height,
                images.source_width,
                stride[1],
                stride[2],
                stride[3]};
    }
    const std::int64_t offset = images.layout[3 * source], height = images.layout[3 * source + 1],
                       width = images.layout[3 * source + 2], room = images.source_elements - offset;
    // Divided rather than multiplied, which could overflow.
    const bool fits = offset >= 0 && height > 0 && width > 0 && height <= room / images.channels &&
                      width <= room / images.channels / height;
    return {fits ? pixels + offset * pixel_size(images.source_type) : nullptr, height, width, height * width, width, 1};
}

template <typename T>
std::int64_t paste_defects_cpu(const PasteImages& images, const PastePolygons<T>& polygons, T* opacity, int threads,
                               int instruction_set) {
    std::vector<std::int64_t> order, first;
    if (const std::int64_t unusable = sort_by_image(images, polygons, order, first)) return unusable;
    const PasteProblem<T> problem{images, polygons, opacity, order.data(), first.data()};
    const auto paste_image = kernel_for<PasteImage<T>>(instruction_set, TWOSTAGE_KERNELS(paste_image));
    const std::int64_t useful = 1 + images.batch * images.channels * images.height * images.width / kValuesPerThread;
    parallel_for(images.batch, {threads, useful}, [&](std::int64_t image) { paste_image(problem, image); });
    return 0;
}

template std::int64_t paste_defects_cpu<float>(const PasteImages&, const PastePolygons<float>&, float*, int, int);
template std::int64_t paste_defects_cpu<double>(const PasteImages&, const PastePolygons<double>&, double*, int, int);

}  // namespace twostage
