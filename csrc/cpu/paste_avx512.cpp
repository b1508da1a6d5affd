#include "paste_kernel.h"

namespace twostage {

void paste_image_avx512(const PasteProblem<float>& problem, std::int64_t image) { paste_image(problem, image); }
void paste_image_avx512(const PasteProblem<double>& problem, std::int64_t image) { paste_image(problem, image); }

}  // namespace twostage
