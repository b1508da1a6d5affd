// Runs every CPU kernel on small and awkward shapes, in buffers of exactly the right size. Prints a line of sums for
// every case and exits with 1 where an output is left out or instruction sets disagree. Built with sanitizers by
// test_native_sanitizers.py and for other processors by test_native_arm.py.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "../csrc/cpu/tile.h"
#include "../csrc/instruction_sets.h"
#include "../csrc/similarity.h"

namespace {

using twostage::ImageType;
using twostage::Reduction;

struct Case {
    twostage::SimilarityParams params;
    ImageType type;
    bool prediction_gradient, target_gradient, map, upstream, mask;
};

template <typename T>
struct Outputs {
    std::vector<T> value, map, prediction_gradient, target_gradient;
};

std::vector<unsigned char> random_pixels(std::int64_t count, ImageType type, unsigned seed) {
    const std::size_t bytes = type == ImageType::kFloat64 ? 8 : type == ImageType::kFloat32 ? 4 : 2;
    std::vector<unsigned char> pixels(static_cast<std::size_t>(count) * bytes);
    for (std::int64_t i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        const double value = (seed >> 8) / 16777216.0;
        const float single = static_cast<float>(value);
        unsigned char* at = pixels.data() + static_cast<std::size_t>(i) * bytes;
        if (type == ImageType::kFloat64) {
            std::memcpy(at, &value, 8);
        } else if (type == ImageType::kFloat32) {
            std::memcpy(at, &single, 4);
        } else {
            // Half of a bfloat16's or float16's numbers below 1: any bit pattern without sign and high exponents will
            // do.
            const unsigned short half = static_cast<unsigned short>((seed >> 8) & 0x3bff);
            std::memcpy(at, &half, 2);
        }
    }
    return pixels;
}

template <typename T>
Outputs<T> run(const Case& c, int instruction_set, int threads) {
    const twostage::SimilarityParams& p = c.params;
    const std::int64_t pixels = p.batch * p.channels * p.height * p.width;
    const std::int64_t cut = p.same_padding ? 0 : p.window_size - 1;
    const std::size_t windows = static_cast<std::size_t>(p.batch * p.channels * (p.height - cut) * (p.width - cut));
    const auto prediction = random_pixels(pixels, c.type, 1), target = random_pixels(pixels, c.type, 2);
    const std::vector<T> sigma(static_cast<std::size_t>(p.batch), T(p.window_size == 7 ? 0.5 : 1.5));
    const std::vector<T> upstream(c.upstream ? windows : 0, T(0.5));
    std::vector<T> mask(c.mask ? static_cast<std::size_t>(p.batch * p.height * p.width) : 0);
    for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = T(i % 5) / 4;
    const std::vector<twostage::MaskScale<T>> mask_scales(c.mask ? static_cast<std::size_t>(p.batch) : 0,
                                                          {T(0.01), T(0.02)});
    const T nan = std::nan("");
    Outputs<T> out{std::vector<T>(static_cast<std::size_t>(p.batch), nan), std::vector<T>(c.map ? windows : 0, nan),
                   std::vector<T>(c.prediction_gradient ? static_cast<std::size_t>(pixels) : 0, nan),
                   std::vector<T>(c.target_gradient ? static_cast<std::size_t>(pixels) : 0, nan)};
    // What the kernel does not write itself is NaN.
    std::memset(twostage::thread_scratch(1 << 21), 0xff, 1 << 21);
    const auto pointer = [](std::vector<T>& v) { return v.empty() ? nullptr : v.data(); };
    const twostage::SimilarityBuffers<T> buffers{prediction.data(),
                                                 target.data(),
                                                 c.type,
                                                 sigma.data(),
                                                 mask.empty() ? nullptr : mask.data(),
                                                 mask.empty() ? nullptr : mask_scales.data(),
                                                 upstream.empty() ? nullptr : upstream.data(),
                                                 out.value.data(),
                                                 pointer(out.map),
                                                 pointer(out.prediction_gradient),
                                                 pointer(out.target_gradient)};
    const Reduction reduction = p.l1_weight > 0 ? Reduction::kLoss : Reduction::kSample;
    twostage::similarity_cpu<T>(p, buffers, reduction, threads, instruction_set);
    if (reduction == Reduction::kLoss) out.value.resize(1);
    return out;
}

template <typename T>
bool agree(const std::vector<T>& a, const std::vector<T>& b) {
    double largest = 1;
    for (const T value : b) largest = std::fmax(largest, std::fabs(static_cast<double>(value)));
    for (std::size_t i = 0; i < a.size(); ++i)
        if (!(std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])) <= 1e-4 * largest)) return false;
    return a.size() == b.size();
}

template <typename T>
void print_sums(const Outputs<T>& outputs) {
    for (const std::vector<T>* output :
         {&outputs.value, &outputs.map, &outputs.prediction_gradient, &outputs.target_gradient}) {
        double sum = 0;  // in which elements that trade places or signs show
        for (std::size_t i = 0; i < output->size(); ++i)
            sum += static_cast<double>((*output)[i]) * (1 + static_cast<double>(i % 7));
        std::printf("%.9g ", sum);
    }
    std::printf("\n");
}

template <typename T>
bool check(const Case& c) {
    const Outputs<T> first = run<T>(c, 0, 1);
    print_sums(first);
    bool good = true;
    for (int set = 0; twostage::cpu_instruction_sets()[set] != nullptr; ++set)
        for (const int threads : {1, 3}) {
            const Outputs<T> other = run<T>(c, set, threads);
            good = good && agree(other.value, first.value) && agree(other.map, first.map) &&
                   agree(other.prediction_gradient, first.prediction_gradient) &&
                   agree(other.target_gradient, first.target_gradient);
        }
    if (!good)
        std::printf("wrong: %ldx%ldx%ldx%ld window %d same %d form %d type %d\n", long(c.params.batch),
                    long(c.params.channels), long(c.params.height), long(c.params.width), c.params.window_size,
                    c.params.same_padding, static_cast<int>(c.params.form), static_cast<int>(c.type));
    return good;
}

}  // namespace

int main() {
    const std::int64_t shapes[][4] = {{1, 1, 11, 11}, {2, 1, 13, 30}, {1, 2, 37, 12}, {1, 1, 12, 277}, {1, 1, 263, 70}};
    const ImageType types[] = {ImageType::kFloat16, ImageType::kBfloat16, ImageType::kFloat32, ImageType::kFloat64};
    bool good = true;
    const twostage::Form forms[] = {twostage::Form::kAdditive, twostage::Form::kProduct,
                                    twostage::Form::kContrastStructure};
    int number = 0;
    for (const auto& shape : shapes)
        for (const int window : {11, 7})
            for (const bool same : {false, true})
                for (const bool masked : {false, true}) {
                    const twostage::Form form = forms[number % 3];
                    const double l1_weight = number % 4 == 1 ? 0.25 : 0;
                    const ImageType type = types[number % 4];
                    const int outputs = number++ / 2 % 3;
                    Case c{{shape[0], shape[1], shape[2], shape[3], window, same, form, 0.2, 0.5, 0.3, 1e-4, 9e-4, 1e-8,
                            l1_weight, 1.0},
                           type,
                           outputs != 1,
                           outputs != 0,
                           number % 2 == 0,
                           number % 5 == 0,
                           masked};
                    good = (type == ImageType::kFloat64 ? check<double>(c) : check<float>(c)) && good;
                    c.prediction_gradient = c.target_gradient = c.upstream = false;
                    good = (type == ImageType::kFloat64 ? check<double>(c) : check<float>(c)) && good;
                }
    for (const twostage::Form form : forms) {  // nothing but padding around one row, one column, one pixel
        for (const auto& size : {std::array<std::int64_t, 2>{1, 20}, {20, 1}, {1, 1}}) {
            const Case c{{1, 1, size[0], size[1], 11, true, form, 0.2, 0.5, 0.3, 1e-4, 9e-4, 1e-8, 0.25, 1.0},
                         ImageType::kFloat32,
                         true,
                         true,
                         true,
                         false,
                         form == twostage::Form::kAdditive};
            good = check<float>(c) && good;
        }
    }
    // Images in the type of the sums, whose rows are read where they lie: planes beside each other, in whole and in
    // parts of vectors, wider than a tile.
    const std::int64_t in_place[][4] = {{2, 3, 13, 30}, {1, 1, 11, 11}, {1, 2, 37, 150}, {1, 1, 12, 1050}};
    for (const auto& shape : in_place)
        for (const ImageType type : {ImageType::kFloat32, ImageType::kFloat64})
            for (const bool same : {false, true})
                for (const int gradients : {0, 1, 2}) {
                    const Case c{{shape[0], shape[1], shape[2], shape[3], 11, same, forms[gradients], 0.2, 0.5, 0.3,
                                  1e-4, 9e-4, 1e-8, 0, 1.0},
                                 type,
                                 gradients > 0,
                                 gradients > 1,
                                 false,
                                 false,
                                 false};
                    good = (type == ImageType::kFloat64 ? check<double>(c) : check<float>(c)) && good;
                }
    return good ? 0 : 1;
}
