// Python's door to the kernels: addresses come in as integers, the interpreter's lock is released while they run.
#include "bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "cpu/threads.h"
#include "instruction_sets.h"
#include "similarity.h"

namespace py = pybind11;

namespace {

using Addresses = std::array<std::uintptr_t, 10>;

template <typename T>
void run(const twostage::SimilarityParams& params, int type, const Addresses& a, int reduction, int threads,
         int instruction_set) {
    const twostage::SimilarityBuffers<T> buffers{
        pointer<const void>(a[0]), pointer<const void>(a[1]), static_cast<twostage::ImageType>(type),
        pointer<const T>(a[2]),    pointer<const T>(a[3]),    pointer<const twostage::MaskScale<T>>(a[4]),
        pointer<const T>(a[5]),    pointer<T>(a[6]),          pointer<T>(a[7]),
        pointer<T>(a[8]),          pointer<T>(a[9])};
    twostage::similarity_cpu<T>(params, buffers, static_cast<twostage::Reduction>(reduction), threads, instruction_set);
}

// addresses: those of SimilarityBuffers, in its order; 0 for null.
void similarity(const std::array<std::int64_t, 4>& shape, int window_size, bool same_padding, int form,
                const std::array<double, 6>& constants, const std::array<double, 2>& l1, int type,
                const Addresses& addresses, int reduction, int threads, int instruction_set) {
    const auto [alpha, beta, gamma, c1, c2, noise] = constants;
    const twostage::SimilarityParams params{
        shape[0], shape[1], shape[2], shape[3], window_size, same_padding, static_cast<twostage::Form>(form),
        alpha,    beta,     gamma,    c1,       c2,          noise,        l1[0],
        l1[1]};
    const py::gil_scoped_release unlocked;
    const bool in_double = static_cast<twostage::ImageType>(type) == twostage::ImageType::kFloat64;
    (in_double ? run<double> : run<float>)(params, type, addresses, reduction, threads, instruction_set);
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const char* const* name = twostage::cpu_instruction_sets(); *name != nullptr; ++name)
        names.emplace_back(*name);
    return names;
}

// start_team: the address of GOMP_parallel.
void use_teams(std::uintptr_t start_team) { twostage::use_teams(reinterpret_cast<twostage::StartTeam>(start_team)); }

}  // namespace

PYBIND11_MODULE(_extension, module) {
    module.def("similarity", &similarity);
    module.def("instruction_sets", &instruction_sets);
    module.def("use_teams", &use_teams);
    bind_paste(module);
    bind_features(module);
}
