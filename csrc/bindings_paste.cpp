// Python's door to paste_defects.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "bindings.h"
#include "paste.h"

namespace {

using twostage::PasteImages;
using twostage::PixelType;

template <typename T>
std::int64_t run(const PasteImages& images, std::int64_t count, const std::array<std::uintptr_t, 14>& a, int threads,
                 int instruction_set) {
    const twostage::PastePolygons<T> polygons{
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
    return twostage::paste_defects_cpu<T>(images, polygons, pointer<T>(a[13]), threads, instruction_set);
}

// images: addresses of target, out, source, source layout (0 for none).
// source: images, height, width, elements in memory.
// polygons: addresses in the order of PastePolygons, then that of the opacity; 0 for null.
std::int64_t paste_defects(const std::array<std::int64_t, 4>& shape, const std::array<std::int64_t, 4>& stride,
                           int type, int source_type, const std::array<std::uintptr_t, 4>& addresses,
                           const std::array<std::int64_t, 4>& source, const std::array<std::int64_t, 4>& source_stride,
                           const std::array<double, 2>& range, std::int64_t count,
                           const std::array<std::uintptr_t, 14>& polygons, int threads, int instruction_set) {
    PasteImages images{};
    images.batch = shape[0];
    images.channels = shape[1];
    images.height = shape[2];
    images.width = shape[3];
    images.type = static_cast<PixelType>(type);
    images.target = pointer<const void>(addresses[0]);
    images.out = pointer<void>(addresses[1]);
    images.source_type = static_cast<PixelType>(source_type);
    images.source = pointer<const void>(addresses[2]);
    images.layout = pointer<const std::int64_t>(addresses[3]);
    images.sources = source[0];
    images.source_height = source[1];
    images.source_width = source[2];
    images.source_elements = source[3];
    for (int axis = 0; axis < 4; ++axis) {
        images.image_stride[axis] = stride[static_cast<std::size_t>(axis)];
        images.source_stride[axis] = source_stride[static_cast<std::size_t>(axis)];
    }
    images.low = range[0];
    images.high = range[1];
    const pybind11::gil_scoped_release unlocked;
    return (images.type == PixelType::kFloat64 ? run<double> : run<float>)(images, count, polygons, threads,
                                                                           instruction_set);
}

}  // namespace

void bind_paste(pybind11::module_& module) { module.def("paste_defects", &paste_defects); }
