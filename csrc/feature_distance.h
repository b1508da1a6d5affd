// Weighted distances between features of unit length: what the kernels take.
#pragma once

#include <cstdint>

#include "similarity.h"

namespace twostage {

// The features of one place lie together. The caller owns every buffer; none may alias.
template <typename T>
struct FeatureProblem {
    std::int64_t positions, channels;
    ImageType prediction_type, target_type;  // both kFloat64 where T is double, neither where it is float
    const void *prediction, *target;         // [positions, channels]
    const T* weights;                        // [channels]
    T* distance;                             // [positions] or null
    const T* upstream;                       // [positions] or null: derivatives of what is minimised by the distances
    void* gradient;                          // [positions, channels] of the prediction's type, where upstream is given
};

// Fills the distances, or with `upstream` the gradient of the prediction, on up to `threads` threads.
// instruction_set: index into cpu_instruction_sets(), -1 for the best.
template <typename T>
void feature_distance_cpu(const FeatureProblem<T>& problem, int threads, int instruction_set);

}  // namespace twostage
