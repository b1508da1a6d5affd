// The unit of work: the places begin <= position < end.
#pragma once

#include <cstdint>

#include "../feature_distance.h"

namespace twostage {

template <typename T>
using MeasureFeatures = void (*)(const FeatureProblem<T>& problem, std::int64_t begin, std::int64_t end);

void measure_features_plain(const FeatureProblem<float>& problem, std::int64_t begin, std::int64_t end);
void measure_features_plain(const FeatureProblem<double>& problem, std::int64_t begin, std::int64_t end);
#if defined(__x86_64__)
void measure_features_avx2(const FeatureProblem<float>& problem, std::int64_t begin, std::int64_t end);
void measure_features_avx2(const FeatureProblem<double>& problem, std::int64_t begin, std::int64_t end);
void measure_features_avx512(const FeatureProblem<float>& problem, std::int64_t begin, std::int64_t end);
void measure_features_avx512(const FeatureProblem<double>& problem, std::int64_t begin, std::int64_t end);
#endif

}  // namespace twostage
