// Python's door to paste_defects on the CPU.
#include "bindings_paste.h"

namespace {

template <typename T>
std::int64_t run(const twostage::PasteImages& images, std::int64_t count, const PolygonAddresses& addresses,
                 int threads, int instruction_set) {
    return twostage::paste_defects_cpu<T>(images, paste_polygons<T>(count, addresses), pointer<T>(addresses[13]),
                                          threads, instruction_set);
}

std::int64_t paste_defects(const FourNumbers& shape, const FourNumbers& stride, int type, int source_type,
                           const ImageAddresses& addresses, const FourNumbers& source, const FourNumbers& source_stride,
                           const std::array<double, 2>& range, std::int64_t count, const PolygonAddresses& polygons,
                           int threads, int instruction_set) {
    const twostage::PasteImages images =
        paste_images(shape, stride, type, source_type, addresses, source, source_stride, range);
    const pybind11::gil_scoped_release unlocked;
    const bool in_double = images.type == twostage::PixelType::kFloat64;
    return (in_double ? run<double> : run<float>)(images, count, polygons, threads, instruction_set);
}

}  // namespace

void bind_paste(pybind11::module_& module) { module.def("paste_defects", &paste_defects); }
