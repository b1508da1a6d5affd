// What the bindings of every op share.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

template <typename T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

void bind_features(pybind11::module_& module);
void bind_paste(pybind11::module_& module);
void bind_paste_cuda(pybind11::module_& module);
