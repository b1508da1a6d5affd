// The instruction sets that kernels on the CPU are compiled for.
#pragma once

namespace twostage {

// Names of those that this build holds and this processor runs, best first; ends with null. Where an `instruction_set`
// is asked for, it is an index into these, or -1 for the best.
const char* const* cpu_instruction_sets();

}  // namespace twostage
