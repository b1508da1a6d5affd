// One kernel, compiled for every instruction set.
#pragma once

#include "../instruction_sets.h"

namespace twostage {

// `plain` is for what every processor of the kind has: on 64-bit Arm that is NEON.
template <typename Kernel>
struct Kernels {
    Kernel plain, avx2 = nullptr, avx512 = nullptr;
};

// Those that this build holds, by their names: kernel_plain and so on, each of which may be overloaded.
#if defined(__x86_64__)
#define TWOSTAGE_KERNELS(kernel) {kernel##_plain, kernel##_avx2, kernel##_avx512}
#else
#define TWOSTAGE_KERNELS(kernel) {kernel##_plain}
#endif

enum class InstructionSet { kPlain, kAvx2, kAvx512 };

// `index` into cpu_instruction_sets(), or -1.
InstructionSet instruction_set_at(int index);

template <typename Kernel>
Kernel kernel_for(int instruction_set, const Kernels<Kernel>& kernels) {
    switch (instruction_set_at(instruction_set)) {
        case InstructionSet::kAvx512:
            return kernels.avx512;
        case InstructionSet::kAvx2:
            return kernels.avx2;
        default:
            return kernels.plain;
    }
}

}  // namespace twostage
