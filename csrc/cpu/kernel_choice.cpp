// Asks the processor what it runs.
#include "kernel_choice.h"

#include <cstddef>
#include <vector>

namespace twostage {

namespace {

bool runs_here(InstructionSet set) {
#if defined(__x86_64__)
    if (set == InstructionSet::kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (set == InstructionSet::kAvx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
#endif
    return set == InstructionSet::kPlain;
}

const char* name_of(InstructionSet set) {
    if (set == InstructionSet::kAvx512) return "avx512";
    if (set == InstructionSet::kAvx2) return "avx2";
#if defined(__aarch64__)
    return "neon";
#else
    return "plain";
#endif
}

// Best first.
const std::vector<InstructionSet>& sets_here() {
    static const std::vector<InstructionSet> sets = [] {
        std::vector<InstructionSet> found;
        for (const InstructionSet set : {InstructionSet::kAvx512, InstructionSet::kAvx2, InstructionSet::kPlain})
            if (runs_here(set)) found.push_back(set);
        return found;
    }();
    return sets;
}

}  // namespace

InstructionSet instruction_set_at(int index) { return sets_here()[index < 0 ? 0 : static_cast<std::size_t>(index)]; }

const char* const* cpu_instruction_sets() {
    static const std::vector<const char*> names = [] {
        std::vector<const char*> found;
        for (const InstructionSet set : sets_here()) found.push_back(name_of(set));
        found.push_back(nullptr);
        return found;
    }();
    return names.data();
}

}  // namespace twostage
