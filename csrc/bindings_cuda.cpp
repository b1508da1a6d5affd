// Python's door to the CUDA kernels, a module of its own: it is missing where there was no nvcc. Addresses, those of
// streams too, come in as integers. Importing it touches no GPU.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "bindings.h"
#include "cuda/similarity.h"

namespace py = pybind11;

namespace {

using twostage::ImageType;
using Addresses = std::array<std::uintptr_t, 10>;

template <typename T>
twostage::SimilarityBuffers<T> buffers_at(ImageType type, const Addresses& a) {
    return {pointer<const void>(a[0]), pointer<const void>(a[1]), type,
            pointer<const T>(a[2]),    pointer<const T>(a[3]),    pointer<const twostage::MaskScale<T>>(a[4]),
            pointer<const T>(a[5]),    pointer<T>(a[6]),          pointer<T>(a[7]),
            pointer<T>(a[8]),          pointer<T>(a[9])};
}

// One call of the similarity kernels. addresses: those of SimilarityBuffers, in its order; 0 for null.
class Similarity {
  public:
    Similarity(const std::array<std::int64_t, 4>& shape, int window_size, bool same_padding, int form,
               const std::array<double, 6>& constants, const std::array<double, 2>& l1, int type,
               const Addresses& addresses, int reduction, int device)
        : params_{shape[0],
                  shape[1],
                  shape[2],
                  shape[3],
                  window_size,
                  same_padding,
                  static_cast<twostage::Form>(form),
                  constants[0],
                  constants[1],
                  constants[2],
                  constants[3],
                  constants[4],
                  constants[5],
                  l1[0],
                  l1[1]},
          type_(static_cast<ImageType>(type)),
          addresses_(addresses),
          reduction_(static_cast<twostage::Reduction>(reduction)),
          device_(device) {}

    std::int64_t workspace() const {
        return type_ == ImageType::kFloat64
                   ? twostage::similarity_cuda_workspace(params_, buffers_at<double>(type_, addresses_), device_)
                   : twostage::similarity_cuda_workspace(params_, buffers_at<float>(type_, addresses_), device_);
    }

    void run(std::uintptr_t workspace, std::uintptr_t stream) const {
        const py::gil_scoped_release unlocked;
        if (type_ == ImageType::kFloat64)
            twostage::similarity_cuda(params_, buffers_at<double>(type_, addresses_), reduction_, device_,
                                      pointer<void>(workspace), pointer<void>(stream));
        else
            twostage::similarity_cuda(params_, buffers_at<float>(type_, addresses_), reduction_, device_,
                                      pointer<void>(workspace), pointer<void>(stream));
    }

  private:
    twostage::SimilarityParams params_;
    ImageType type_;
    Addresses addresses_;
    twostage::Reduction reduction_;
    int device_;
};

void rescale(std::uintptr_t values, std::uintptr_t factor, bool in_double, std::int64_t samples, std::int64_t count,
             std::int64_t factors, int device, std::uintptr_t stream) {
    const py::gil_scoped_release unlocked;
    if (in_double)
        twostage::rescale_cuda(pointer<double>(values), pointer<const double>(factor), samples, count, factors, device,
                               pointer<void>(stream));
    else
        twostage::rescale_cuda(pointer<float>(values), pointer<const float>(factor), samples, count, factors, device,
                               pointer<void>(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda_extension, module) {
    py::class_<Similarity>(module, "Similarity")
        .def(py::init<const std::array<std::int64_t, 4>&, int, bool, int, const std::array<double, 6>&,
                      const std::array<double, 2>&, int, const Addresses&, int, int>())
        .def("workspace", &Similarity::workspace)
        .def("run", &Similarity::run);
    module.def("rescale", &rescale);
    bind_paste_cuda(module);
    module.def("devices", &twostage::cuda_devices);
    module.attr("architectures") = TWOSTAGE_CUDA_ARCHITECTURES;
    module.attr("window_sizes") = py::make_tuple(twostage::kSmallestCudaWindow, twostage::kLargestCudaWindow);
}
