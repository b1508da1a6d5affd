// Distances between features of unit length at one place after the other, or their gradient.
#pragma once

#include <cmath>
#include <cstdint>

#include "convert.h"
#include "feature_range.h"
#include "pixels.h"
#include "simd.h"
#include "tile.h"

namespace twostage {
namespace {

// Added to a squared length: features that are all zero stay so.
constexpr double kLeastSquare = 1e-10;

// The lanes' sum, halves first.
template <typename T>
TWOSTAGE_INLINE T sum_of_lanes(Vector<T> value) {
    T lanes[kLanes<T>];
    std::memcpy(lanes, &value, sizeof lanes);
    for (int half = kLanes<T> / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

template <typename T>
void write_features(const T* from, ImageType type, std::int64_t count, void* to) {
    if (sizeof(T) == 8 || type == ImageType::kFloat32) {
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
    } else if (type == ImageType::kBfloat16) {
        for (std::int64_t i = 0; i < count; ++i) put(static_cast<float>(from[i]), static_cast<Bfloat*>(to)[i]);
    } else {
        for (std::int64_t i = 0; i < count; ++i) put(static_cast<float>(from[i]), static_cast<Half*>(to)[i]);
    }
}

// One image's features, of one place at a time in the precision of the sums and up to a whole vector.
template <typename T>
class Features {
  public:
    // `room`: `padded` zeros, of which `channels` are used.
    Features(const void* features, ImageType type, std::int64_t channels, std::int64_t padded, T* room)
        : features_(static_cast<const char*>(features)),
          type_(type),
          channels_(channels),
          in_place_(channels == padded && pixel_bytes(type) == static_cast<std::int64_t>(sizeof(T))),
          room_(room) {}

    const T* at(std::int64_t position) const {
        const char* const from = features_ + position * channels_ * pixel_bytes(type_);
        if (in_place_) return reinterpret_cast<const T*>(from);
        convert_pixels(from, type_, channels_, room_);
        return room_;
    }

  private:
    const char* const features_;
    const ImageType type_;
    const std::int64_t channels_;
    const bool in_place_;
    T* const room_;
};

template <typename T>
T inverse_length(const T* features, std::int64_t padded) {
    Vector<T> squares{};
    for (std::int64_t c = 0; c < padded; c += kLanes<T>) squares += load(features + c) * load(features + c);
    return 1 / std::sqrt(sum_of_lanes<T>(squares) + static_cast<T>(kLeastSquare));
}

template <typename T>
void measure_features(const FeatureProblem<T>& problem, std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t lanes = kLanes<T>;
    const std::int64_t channels = problem.channels, padded = (channels + lanes - 1) / lanes * lanes;
    T* const weights = static_cast<T*>(thread_scratch(4 * padded * static_cast<std::int64_t>(sizeof(T))));
    std::memset(weights, 0, static_cast<std::size_t>(3 * padded) * sizeof(T));
    std::memcpy(weights, problem.weights, static_cast<std::size_t>(channels) * sizeof(T));
    T* const gradient = weights + 3 * padded;
    const Features<T> predictions(problem.prediction, problem.prediction_type, channels, padded, weights + padded);
    const Features<T> targets(problem.target, problem.target_type, channels, padded, weights + 2 * padded);
    for (std::int64_t position = begin; position < end; ++position) {
        const T *const prediction = predictions.at(position), *const target = targets.at(position);
        const T scale = inverse_length(prediction, padded), ratio = inverse_length(target, padded) / scale;
        const auto difference_at = [&](std::int64_t c) TWOSTAGE_INLINE_LAMBDA {
            return scale * (load(prediction + c) - ratio * load(target + c));  // exactly 0 where both are equal
        };
        Vector<T> distance{}, along{};
        for (std::int64_t c = 0; c < padded; c += lanes) {
            const Vector<T> unit = scale * load(prediction + c), difference = difference_at(c);
            const Vector<T> weighted = load(weights + c) * difference;
            distance += weighted * difference;
            along += weighted * unit;
        }
        if (problem.upstream == nullptr) {
            problem.distance[position] = sum_of_lanes<T>(distance);
            continue;
        }
        // d unit_k / d feature_c = ((1 where k is c) - unit_k * unit_c) * scale
        const T factor = 2 * scale * problem.upstream[position], inner = sum_of_lanes<T>(along);
        for (std::int64_t c = 0; c < padded; c += lanes) {
            const Vector<T> unit = scale * load(prediction + c);
            store<T>(gradient + c, factor * (load(weights + c) * difference_at(c) - inner * unit));
        }
        char* const to = static_cast<char*>(problem.gradient);
        write_features(gradient, problem.prediction_type, channels,
                       to + position * channels * pixel_bytes(problem.prediction_type));
    }
}

}  // namespace
}  // namespace twostage
