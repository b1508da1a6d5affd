// Python's door to feature_distance on the CPU.
#include <pybind11/stl.h>

#include <array>

#include "bindings.h"
#include "feature_distance.h"

namespace {

// Of prediction, target, weights, distance, upstream, gradient; 0 for null.
using Addresses = std::array<std::uintptr_t, 6>;

template <typename T>
void run(std::int64_t positions, std::int64_t channels, int prediction_type, int target_type, const Addresses& a,
         int threads, int instruction_set) {
    const twostage::FeatureProblem<T> problem{positions,
                                              channels,
                                              static_cast<twostage::ImageType>(prediction_type),
                                              static_cast<twostage::ImageType>(target_type),
                                              pointer<const void>(a[0]),
                                              pointer<const void>(a[1]),
                                              pointer<const T>(a[2]),
                                              pointer<T>(a[3]),
                                              pointer<const T>(a[4]),
                                              pointer<void>(a[5])};
    twostage::feature_distance_cpu<T>(problem, threads, instruction_set);
}

void feature_distance(std::int64_t positions, std::int64_t channels, int prediction_type, int target_type,
                      const Addresses& addresses, int threads, int instruction_set) {
    const pybind11::gil_scoped_release unlocked;
    const bool in_double = static_cast<twostage::ImageType>(prediction_type) == twostage::ImageType::kFloat64;
    (in_double ? run<double> : run<float>)(positions, channels, prediction_type, target_type, addresses, threads,
                                           instruction_set);
}

}  // namespace

void bind_features(pybind11::module_& module) { module.def("feature_distance", &feature_distance); }
