// What the bindings of paste_defects share: its arguments as Python gives them.
#pragma once

#include <pybind11/stl.h>

#include <array>

#include "bindings.h"
#include "paste.h"

// Of target, out, source, source layout (0 for none).
using ImageAddresses = std::array<std::uintptr_t, 4>;
// In the order of PastePolygons, then that of the opacity; 0 for null.
using PolygonAddresses = std::array<std::uintptr_t, 14>;
using FourNumbers = std::array<std::int64_t, 4>;

// `source`: images, height, width, elements in memory.
inline twostage::PasteImages paste_images(const FourNumbers& shape, const FourNumbers& stride, int type,
                                          int source_type, const ImageAddresses& addresses, const FourNumbers& source,
                                          const FourNumbers& source_stride, const std::array<double, 2>& range) {
    twostage::PasteImages images{};
    images.batch = shape[0];
    images.channels = shape[1];
    images.height = shape[2];
    images.width = shape[3];
    images.type = static_cast<twostage::PixelType>(type);
    images.target = pointer<const void>(addresses[0]);
    images.out = pointer<void>(addresses[1]);
    images.source_type = static_cast<twostage::PixelType>(source_type);
    images.source = pointer<const void>(addresses[2]);
    images.layout = pointer<const std::int64_t>(addresses[3]);
    images.sources = source[0];
    images.source_height = source[1];
    images.source_width = source[2];
    images.source_elements = source[3];
    for (std::size_t axis = 0; axis < 4; ++axis) {
        images.image_stride[axis] = stride[axis];
        images.source_stride[axis] = source_stride[axis];
    }
    images.low = range[0];
    images.high = range[1];
    return images;
}

template <typename T>
twostage::PastePolygons<T> paste_polygons(std::int64_t count, const PolygonAddresses& a) {
    return {
        count,
        pointer<const T>(a[0]),
        pointer<const std::int64_t>(a[1]),
        pointer<const std::int64_t>(a[2]),
        pointer<const std::int64_t>(a[3]),
        pointer<const T>(a[4]),
        pointer<const T>(a[5]),
        pointer<const T>(a[6]),
        pointer<const T>(a[7]),
        pointer<const T>(a[8]),
        pointer<const std::int64_t>(a[9]),
        pointer<const T>(a[10]),
        pointer<const T>(a[11]),
        pointer<const std::int64_t>(a[12]),
    };
}
