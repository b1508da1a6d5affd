// Runs the kernels of feature_distance on small and awkward shapes, in buffers of exactly the right size. Prints a line
// of sums for every case and exits with 1 where an output is left out or instruction sets disagree. Built with
// sanitizers by test_native_sanitizers.py and for other processors by test_native_arm.py.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "../csrc/cpu/tile.h"
#include "../csrc/feature_distance.h"
#include "../csrc/instruction_sets.h"

namespace {

using twostage::ImageType;

struct Case {
    std::int64_t positions, channels;
    ImageType prediction, target;
};

std::size_t bytes_of(ImageType type) { return type == ImageType::kFloat64 ? 8 : type == ImageType::kFloat32 ? 4 : 2; }

// Numbers below 1, some of them 0.
std::vector<unsigned char> random_features(std::int64_t count, ImageType type, unsigned seed) {
    std::vector<unsigned char> features(static_cast<std::size_t>(count) * bytes_of(type));
    for (std::int64_t i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        const double value = seed >> 30 ? (seed >> 8) / 16777216.0 : 0;
        const float single = static_cast<float>(value);
        const unsigned short half = seed >> 30 ? static_cast<unsigned short>((seed >> 8) & 0x3bff) : 0;
        unsigned char* const at = features.data() + static_cast<std::size_t>(i) * bytes_of(type);
        const void* const from = type == ImageType::kFloat64   ? static_cast<const void*>(&value)
                                 : type == ImageType::kFloat32 ? static_cast<const void*>(&single)
                                                               : static_cast<const void*>(&half);
        std::memcpy(at, from, bytes_of(type));
    }
    return features;
}

double number(const unsigned char* at, ImageType type) {
    if (type == ImageType::kFloat64) {
        double value;
        std::memcpy(&value, at, 8);
        return value;
    }
    std::uint32_t bits = 0;
    if (type == ImageType::kFloat32) {
        std::memcpy(&bits, at, 4);
    } else {
        std::uint16_t half;
        std::memcpy(&half, at, 2);
        if (type == ImageType::kFloat16) {
            const int exponent = (half >> 10) & 31;
            const double size = exponent ? std::ldexp(1024 + (half & 1023), exponent - 25)
                                         : std::ldexp(static_cast<double>(half & 1023), -24);
            return exponent == 31 ? std::nan("") : half & 0x8000 ? -size : size;
        }
        bits = static_cast<std::uint32_t>(half) << 16;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return static_cast<double>(value);
}

// The distances, then the gradient.
template <typename T>
std::vector<double> run(const Case& c, int instruction_set, int threads) {
    const std::int64_t count = c.positions * c.channels;
    const auto prediction = random_features(count, c.prediction, 1), target = random_features(count, c.target, 2);
    std::vector<T> weights(static_cast<std::size_t>(c.channels)), upstream(static_cast<std::size_t>(c.positions));
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = T(i % 5 + 1) / 5;
    for (std::size_t i = 0; i < upstream.size(); ++i) upstream[i] = T(i % 3) / 20 - T(0.025);
    std::vector<T> distance(static_cast<std::size_t>(c.positions), std::nan(""));
    std::vector<unsigned char> gradient(prediction.size(), 0xff);  // NaN in every type
    std::memset(twostage::thread_scratch(1 << 16), 0xff, 1 << 16);
    twostage::FeatureProblem<T> problem{c.positions,   c.channels,     c.prediction,    c.target, prediction.data(),
                                        target.data(), weights.data(), distance.data(), nullptr,  nullptr};
    twostage::feature_distance_cpu<T>(problem, threads, instruction_set);
    problem.distance = nullptr;
    problem.upstream = upstream.data();
    problem.gradient = gradient.data();
    twostage::feature_distance_cpu<T>(problem, threads, instruction_set);
    std::vector<double> results(distance.begin(), distance.end());
    for (std::int64_t i = 0; i < count; ++i)
        results.push_back(number(gradient.data() + static_cast<std::size_t>(i) * bytes_of(c.prediction), c.prediction));
    return results;
}

// Whether `a` is `b` but for rounding, to the prediction's type among others.
bool agree(const std::vector<double>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i)
        if (!(std::fabs(a[i] - b[i]) <= 1e-5 + 0.01 * std::fabs(b[i]))) return false;
    return a.size() == b.size();
}

template <typename T>
bool check(const Case& c) {
    const std::vector<double> first = run<T>(c, 0, 1);
    double sum = 0, weighted = 0;  // in the second of which elements that trade places or signs show
    for (std::size_t i = 0; i < first.size(); ++i) {
        sum += first[i] / static_cast<double>(first.size());
        weighted += first[i] * (1 + static_cast<double>(i % 7)) / static_cast<double>(first.size());
    }
    std::printf("%.9g %.9g\n", sum, weighted);
    bool good = std::isfinite(sum);
    for (int set = 0; twostage::cpu_instruction_sets()[set] != nullptr; ++set)
        for (const int threads : {1, 3}) good = good && agree(run<T>(c, set, threads), first);
    if (!good) std::printf("wrong: %ld positions, %ld channels\n", long(c.positions), long(c.channels));
    return good;
}

}  // namespace

int main() {
    const ImageType types[] = {ImageType::kFloat16, ImageType::kBfloat16, ImageType::kFloat32};
    bool good = true;
    for (const std::int64_t positions : {1, 7, 300})
        for (const std::int64_t channels : {1, 3, 16, 37, 64, 192}) {
            for (int pair = 0; pair < 3; ++pair)
                good = check<float>({positions, channels, types[pair], types[(pair + channels) % 3]}) && good;
            good = check<double>({positions, channels, ImageType::kFloat64, ImageType::kFloat64}) && good;
        }
    return good ? 0 : 1;
}
