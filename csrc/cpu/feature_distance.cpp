// Shares the places out among threads, on the best instruction set.
#include "../feature_distance.h"

#include "feature_range.h"
#include "kernel_choice.h"
#include "ranges.h"
#include "threads.h"

namespace twostage {

namespace {

// A thread takes so many values at a time. Below as many for each, waking a second one takes longer than the work.
constexpr std::int64_t kValuesAtOnce = 16384, kValuesPerThread = 32768;

}  // namespace

template <typename T>
void feature_distance_cpu(const FeatureProblem<T>& problem, int threads, int instruction_set) {
    const auto measure_features = kernel_for<MeasureFeatures<T>>(instruction_set, TWOSTAGE_KERNELS(measure_features));
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
