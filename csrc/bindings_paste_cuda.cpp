// Python's door to paste_defects on a CUDA device.
#include "bindings_paste.h"
#include "cuda/paste.h"

namespace {

template <typename T>
void run(const twostage::PasteImages& images, std::int64_t count, const PolygonAddresses& addresses, int device,
         std::uintptr_t stream) {
    twostage::paste_defects_cuda<T>(images, paste_polygons<T>(count, addresses), pointer<T>(addresses[13]), device,
                                    pointer<void>(stream));
}

void paste_defects(const FourNumbers& shape, const FourNumbers& stride, int type, int source_type,
                   const ImageAddresses& addresses, const FourNumbers& source, const FourNumbers& source_stride,
                   const std::array<double, 2>& range, std::int64_t count, const PolygonAddresses& polygons, int device,
                   std::uintptr_t stream) {
    const twostage::PasteImages images =
        paste_images(shape, stride, type, source_type, addresses, source, source_stride, range);
    const pybind11::gil_scoped_release unlocked;
    const bool in_double = images.type == twostage::PixelType::kFloat64;
    (in_double ? run<double> : run<float>)(images, count, polygons, device, stream);
}

}  // namespace

void bind_paste_cuda(pybind11::module_& module) { module.def("paste_defects", &paste_defects); }
