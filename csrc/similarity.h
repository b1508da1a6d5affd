// Structural similarity of image pairs and its gradient: what the caller sees. Pointers and sizes only.
#pragma once

#include <cstdint>

namespace twostage {

enum class ImageType { kFloat16, kBfloat16, kFloat32, kFloat64 };

enum class Reduction { kMean, kSample, kLoss, kMap };

struct SimilarityParams {
    std::int64_t batch, channels, height, width;
    int window_size;            // taps in each direction, odd
    bool same_padding;          // zeros around the image; otherwise whole windows only
    bool additive;              // alpha * l + beta * c + gamma * s; otherwise the product l * c * s
    double alpha, beta, gamma;  // of the additive form; 1, 0, 0 for the product
    double c1, c2;              // squares of k1 * data_range and k2 * data_range
    double noise;               // variance that both images are taken to carry in the additive form
};

// Similarity of each pair and, where a gradient's pointer is not null, that gradient, in one pass over the images.
// The caller owns every buffer and none may alias. Outputs are fully overwritten. T is float, or double for kFloat64.
template <typename T>
struct SimilarityBuffers {
    const void* prediction;  // [B, C, H, W] in `type`
    const void* target;      // [B, C, H, W] in `type`
    ImageType type;          //
    const T* sigma;          // [B] pixels, > 0
    const T* upstream;       // [B, C, H', W'], the derivative of the map, or null: that of the reduced value
    T* value;                // [1] (mean, loss = 1 - mean), [B] (sample), or null
    T* map;                  // [B, C, H', W'] or null
    T* prediction_gradient;  // [B, C, H, W] or null
    T* target_gradient;      // [B, C, H, W] or null
};

// The same inputs give the same bits whatever `threads` is.
// `instruction_set` indexes cpu_instruction_sets(); -1 takes the best.
template <typename T>
void similarity_cpu(const SimilarityParams& params, const SimilarityBuffers<T>& buffers, Reduction reduction,
                    int threads, int instruction_set);

// Names of the instruction sets this build holds and this processor runs, best first; ends with null.
const char* const* cpu_instruction_sets();

}  // namespace twostage
