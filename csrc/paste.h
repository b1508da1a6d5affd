// Polygon cut-outs of source images pasted into a batch: what the caller sees. Pointers, sizes and strides only.
#pragma once

#include <cstdint>

namespace twostage {

enum class PixelType { kUint8, kFloat16, kBfloat16, kFloat32, kFloat64 };

enum class BlendMode { kNormal, kMultiply, kScreen, kDarken, kLighten, kGrainMerge };

constexpr int kMaxVertices = 7;
constexpr double kMaxBlurSigma = 64;  // pixels: the blur reaches 192 pixels at most
constexpr double kMaxEdgeAmplitude = 64;
// Half-way between neighbouring pixels a Gaussian narrower than this is 0 in double precision: the edge stays hard.
constexpr double kSmallestBlurSigma = 1e-3;
constexpr double kBlurExtent = 3;  // standard deviations, rounded up to whole pixels

struct PasteImages {
    std::int64_t batch, channels, height, width;
    PixelType type;                // of target and out; kFloat64 needs T = double, every other T = float
    const void* target;            // [B, C, H, W]
    void* out;                     // as target, with the same strides; may be target itself, else must not overlap it
    std::int64_t image_stride[4];  // of target and out, in elements: image, channel, row, column. The elements of an
                                   // image are C * H * W in a row, in any order
    PixelType source_type;         // that of target, or kUint8: beside another target 255 then counts as 1
    const void* source;            // [S, C, h, w], or with `layout` C planes [h, w] of every image
    std::int64_t source_elements;  // in memory from `source` on
    std::int64_t sources;          // S
    std::int64_t source_height, source_width;  // without `layout`; sides of images are below 2^31
    std::int64_t source_stride[4];             // without `layout`, in elements
    const std::int64_t* layout;                // [S, 3] offset in elements, height, width of each image, or null
    double low, high;                          // value range, for the colour change and the blend modes
};

// Polygon p of an image lies below polygon p + 1. T is float, or double for kFloat64 images.
template <typename T>
struct PastePolygons {
    std::int64_t count;                // P
    const T* vertices;                 // [P, 7, 2] target pixels (x, y); those past vertex_count may hold anything
    const std::int64_t* vertex_count;  // [P] 3..7; 0 is an empty slot, whose other values may be anything
    const std::int64_t* image_index;   // [P], or null: polygon p belongs to image p / (P / B)
    const std::int64_t* source_index;  // [P]
    const T* transform;                // [P, 2, 3] target pixels (x, y, 1) -> source pixels (x, y)
    const T* blur_sigma;               // [P] pixels, 0..kMaxBlurSigma
    const T* strength;                 // [P] 0..1, or null: 1
    const T* color_gain;               // [P, C] or null: 1
    const T* color_offset;             // [P, C] or null: 0
    const std::int64_t* blend_mode;    // [P] BlendMode, or null: kNormal
    const T* edge_amplitude;           // [P] pixels, 0..kMaxEdgeAmplitude, or null: straight edges
    const T* edge_grain;               // [P] pixels, >= 1; null with edge_amplitude
    const std::int64_t* edge_seed;     // [P], of which the lowest 32 bits count; null with edge_amplitude
};

// What is computed, for every polygon in turn, on every target pixel (x, y) of its image:
//
//   inside(x, y)   The even-odd rule at the point (x + 0.5, y + 0.5). With edge noise the point is moved first, by a
//                  whole number of 1/256 pixels along each axis (reference/edge_noise.py; integers only). An edge from
//                  its lower end (lx, ly) to its upper end (hx, hy) counts where ly <= y < hy and x < lx + (y - ly) /
//                  (hy - ly) * (hx - lx), in T, every operation rounded by itself (no fused multiply-add): then all
//                  backends find the same pixels.
//   content(x, y)  The source at transform * (x + 0.5, y + 0.5, 1) - 0.5, clamped to the image, bilinear as
//                  a + f * (b - a), in either order. Positions in double, or to 2^-16 pixel at least. Then
//                  * color_gain + color_offset and, where one of them is given, clamped to [low, high].
//   blurred        (content * inside, inside) filtered along rows, then columns, with exp(-d^2 / (2 sigma^2)) for
//                  |d| <= ceil(3 sigma), in T, normalised over these taps. Outside the image there is 0. Values that
//                  are not inside are never read, however large or undefined.
//   a              blurred inside * strength. Where a > 0, and nowhere else:
//                  image   = image * (1 - a) + blurred content * strength  (kNormal), or
//                  image   = image * (1 - a) + mix(image, blurred content / blurred inside) * a
//                  opacity = opacity * (1 - a) + a
//                  mix in units of the value range, b below and c above: b c, 1 - (1 - b)(1 - c), min, max,
//                  clamp(b + c - 0.5, 0, 1).
//
// `image` is held in T between the polygons of an image and rounded to its type once (uint8: to the nearest, clamped).
// A pixel whose opacity ends at 0 keeps the target's bits. A polygon with a value outside the ranges above, an index
// outside its range or a source image that does not lie within source_elements cannot be pasted: where nobody can be
// told (on a GPU), it is left out.

// `opacity` [B, 1, H, W] is fully overwritten; `out` too, unless it is target: then only touched pixels are. The caller
// owns every buffer; none may alias, out and target apart. The same inputs give the same bits whatever `threads` is.
// `instruction_set` indexes cpu_instruction_sets() (instruction_sets.h); -1 takes the best.
// Returns how many polygons, empty slots apart, would have to be left out. Where there are any, nothing is written.
template <typename T>
std::int64_t paste_defects_cpu(const PasteImages& images, const PastePolygons<T>& polygons, T* opacity, int threads,
                               int instruction_set);

}  // namespace twostage
