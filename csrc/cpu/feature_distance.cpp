// Shares the places out among threads, on the best instruction set.
#include "../feature_distance.h"

#include <cstring>

#include "feature_range.h"
#include "ranges.h"
#include "threads.h"

namespace twostage {

namespace {

// A thread takes so many values at a time. Below as many for each, waking a second one takes longer than the work.
constexpr std::int64_t kValuesAtOnce = 16384, kValuesPerThread = 32768;

// In the order of cpu_instruction_sets().
template <typename T>
MeasureFeatures<T> chosen_kernel(int instruction_set) {
    const char* name = cpu_instruction_sets()[instruction_set < 0 ? 0 : instruction_set];
#if defined(__x86_64__)
    if (std::strcmp(name, "avx512") == 0) return measure_features_avx512;
    if (std::strcmp(name, "avx2") == 0) return measure_features_avx2;
#endif
    (void)name;
    return measure_features_plain;
}

}  // namespace

template <typename T>
void feature_distance_cpu(const FeatureProblem<T>& problem, int threads, int instruction_set) {
    const MeasureFeatures<T> measure_features = chosen_kernel<T>(instruction_set);
    const std::int64_t at_once = larger(kValuesAtOnce / problem.channels, 1);
    const std::int64_t items = (problem.positions + at_once - 1) / at_once;
    const std::int64_t useful = 1 + problem.positions * problem.channels / kValuesPerThread;
    parallel_for(items, {threads, useful}, [&](std::int64_t item) {
        measure_features(problem, item * at_once, smaller((item + 1) * at_once, problem.positions));
    });
}

template void feature_distance_cpu<float>(const FeatureProblem<float>&, int, int);
template void feature_distance_cpu<double>(const FeatureProblem<double>&, int, int);

}  // namespace twostage
