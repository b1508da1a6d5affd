#include "feature_kernel.h"

namespace twostage {

void measure_features_plain(const FeatureProblem<float>& problem, std::int64_t begin, std::int64_t end) {
    measure_features(problem, begin, end);
}
void measure_features_plain(const FeatureProblem<double>& problem, std::int64_t begin, std::int64_t end) {
    measure_features(problem, begin, end);
}

}  // namespace twostage
