// What the images of one call share, and the unit of work: one image of the batch.
#pragma once

#include <cstdint>

#include "../paste.h"

namespace twostage {

template <typename T>
struct PasteProblem {
    PasteImages images;
    PastePolygons<T> polygons;
    T* opacity;
    const std::int64_t* order;  // usable polygons, those of one image together and in their order
    const std::int64_t* first;  // [B + 1] where each image's begin in `order`
};

// Copies the image, clears its opacity and pastes its polygons.
template <typename T>
using PasteImage = void (*)(const PasteProblem<T>& problem, std::int64_t image);

void paste_image_plain(const PasteProblem<float>& problem, std::int64_t image);
void paste_image_plain(const PasteProblem<double>& problem, std::int64_t image);
#if defined(__x86_64__)
void paste_image_avx2(const PasteProblem<float>& problem, std::int64_t image);
void paste_image_avx2(const PasteProblem<double>& problem, std::int64_t image);
void paste_image_avx512(const PasteProblem<float>& problem, std::int64_t image);
void paste_image_avx512(const PasteProblem<double>& problem, std::int64_t image);
#endif

struct SourceImage {
    const char* pixels;
    std::int64_t height, width;
    std::int64_t channel_stride, row_stride, column_stride;  // elements
};

// Of the polygon, whose index must lie in its range. No pixels where the source does not lie within its memory.
SourceImage source_image(const PasteImages& images, std::int64_t source);

std::int64_t pixel_size(PixelType type);

}  // namespace twostage
