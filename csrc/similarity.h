// Structural similarity of image pairs and its gradient: what the caller sees. Pointers and sizes only.
#pragma once

#include <cstdint>

namespace twostage {

enum class ImageType { kFloat16, kBfloat16, kFloat32, kFloat64 };

enum class Reduction { kMean, kSample, kLoss, kMap };

// What a window scores: alpha * l + beta * c + gamma * s, or l * c * s, or c * s.
enum class Form { kAdditive, kProduct, kContrastStructure };

struct SimilarityParams {
    std::int64_t batch, channels, height, width;
    int window_size;            // taps in each direction, odd
    bool same_padding;          // zeros around the image; otherwise whole windows only
    Form form;                  //
    double alpha, beta, gamma;  // of the additive form
    double c1, c2;              // squares of k1 * data_range and k2 * data_range
    double noise;               // variance that both images are taken to carry in the additive form
    double l1_weight;           // share of the mean absolute difference in a loss, in [0, 1]
    double l1_unit;             // the difference that counts as 1: data_range
};

constexpr double kLeastCoverage = 1e-8;

// What the sums over windows and over pixels are multiplied by to give a sample's part of the reduced value.
template <typename T>
struct MaskScale {
    T window, pixel;
};

// Similarity of each pair and, where a gradient's pointer is not null, that gradient, in one pass over the images.
//
// The loss is (1 - l1_weight) * (1 - mean score) + l1_weight * mean |prediction - target| / l1_unit.
//
// With a mask, each pixel counts in a window's moments by its Gaussian weight times its mask, divided by the sum of
// these over the window, the coverage. Windows count in a mean by their coverage, pixels by their mask. A window of
// less than kLeastCoverage scores the highest value and has no derivative. What a hidden pixel (mask 0) holds, NaN
// included, reaches no result. With same_padding the zeros beyond the border are masked like the nearest pixel inside.
//
// The caller owns every buffer and none may alias. Outputs are fully overwritten. T is float, or double for kFloat64.
template <typename T>
struct SimilarityBuffers {
    const void* prediction;           // [B, C, H, W] in `type`
    const void* target;               // [B, C, H, W] in `type`
    ImageType type;                   //
    const T* sigma;                   // [B] pixels, > 0
    const T* mask;                    // [B, 1, H, W] of at least 0, or null
    const MaskScale<T>* mask_scales;  // [B], where there is a mask and a value
    const T* upstream;                // [B, C, H', W'], the derivative of the map, or null: that of the reduced value
    T* value;                         // [1] (mean, loss), [B] (sample), or null
    T* map;                           // [B, C, H', W'] or null
    T* prediction_gradient;           // [B, C, H, W] or null
    T* target_gradient;               // [B, C, H, W] or null
};

// The same inputs give the same bits whatever `threads` is.
// `instruction_set` indexes cpu_instruction_sets(); -1 takes the best.
template <typename T>
void similarity_cpu(const SimilarityParams& params, const SimilarityBuffers<T>& buffers, Reduction reduction,
                    int threads, int instruction_set);

}  // namespace twostage
