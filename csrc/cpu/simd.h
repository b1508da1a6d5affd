// Vectors as wide as the instruction set this translation unit is compiled for. Everything here has internal linkage:
// the same template compiled for another instruction set must never be taken for it by the linker.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define TWOSTAGE_INLINE inline __attribute__((always_inline))
#define TWOSTAGE_INLINE_LAMBDA __attribute__((always_inline))

namespace twostage {
namespace {

// Rows that a vertical filter sums at once: those that its registers hold. The more there are, the less often a row is
// fetched. kRowGroup rows of windows, kGradientRows of pixels, whose images have one gradient or both.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRowGroup = 4;
template <bool kBoth>
constexpr int kGradientRows = kBoth ? 6 : 8;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRowGroup = 2;
template <bool kBoth>
constexpr int kGradientRows = 2;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRowGroup = 4;
template <bool kBoth>
constexpr int kGradientRows = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kRowGroup = 2;
template <bool kBoth>
constexpr int kGradientRows = 2;
#endif

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

template <int kValue>
constexpr Constant<kValue + 1> one_more(Constant<kValue>) {
    return {};
}
constexpr int one_more(int value) { return value + 1; }

template <int kValue>
constexpr Constant<-kValue> opposite(Constant<kValue>) {
    return {};
}
constexpr int opposite(int value) { return -value; }

template <typename Body, int... kIndices>
TWOSTAGE_INLINE void unrolled(std::integer_sequence<int, kIndices...>, Body&& body) {
    (body(Constant<kIndices>{}), ...);
}

// body(0) ... body(count - 1), unrolled and with a Constant where kCount, which then equals `count`, is not 0.
template <int kCount, typename Body>
TWOSTAGE_INLINE void repeat(int count, Body&& body) {
    if constexpr (kCount != 0)
        unrolled(std::make_integer_sequence<int, kCount>{}, body);
    else
        for (int index = 0; index < count; ++index) body(index);
}

template <int kCount, typename Body>
TWOSTAGE_INLINE void repeat(Body&& body) {
    unrolled(std::make_integer_sequence<int, kCount>{}, body);
}

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float Type __attribute__((vector_size(kVectorBytes)));
    typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
    typedef std::int32_t Index __attribute__((vector_size(kVectorBytes)));
    typedef std::int32_t Lane;
};
template <>
struct VectorOf<double> {
    typedef double Type __attribute__((vector_size(kVectorBytes)));
    typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
    typedef std::int64_t Index __attribute__((vector_size(kVectorBytes)));
    typedef std::int64_t Lane;
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
TWOSTAGE_INLINE Vector<T> load(const T* from) {
    return *reinterpret_cast<const typename VectorOf<T>::Unaligned*>(from);
}

// `value`, fetched from memory once. Compilers would rather fetch it for every use, which costs no instruction of its
// own; but of 32 bytes a processor fetches two a cycle, and with them the filters of AVX2 are at their limit.
template <typename T>
TWOSTAGE_INLINE Vector<T> fetched(Vector<T> value) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    asm("" : "+x"(value));
#endif
    return value;
}

template <typename T>
TWOSTAGE_INLINE void store(T* to, Vector<T> value) {
    *reinterpret_cast<typename VectorOf<T>::Unaligned*>(to) = value;
}

// The first `count` lanes, or all if there are fewer.
template <typename T>
TWOSTAGE_INLINE void store_some(T* to, Vector<T> value, std::int64_t count) {
    if (count >= kLanes<T>) {
        store(to, value);
    } else if (count > 0) {
        std::memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(T));
    }
}

// The first `count` lanes, or all if there are fewer; 0 in the others.
template <typename T>
TWOSTAGE_INLINE Vector<T> load_some(const T* from, std::int64_t count) {
    if (count >= kLanes<T>) return load(from);
    Vector<T> value{};
    for (int lane = 0; lane < count; ++lane) value[lane] = from[lane];
    return value;
}

// `value` in the lanes begin <= lane < end, 0 in the others, whatever they hold.
template <typename T>
TWOSTAGE_INLINE Vector<T> keep_lanes(Vector<T> value, std::int64_t begin, std::int64_t end) {
    using Lane = typename VectorOf<T>::Lane;
    typename VectorOf<T>::Index lanes{};
    for (int lane = 0; lane < kLanes<T>; ++lane) lanes[lane] = lane;
    const Lane first = static_cast<Lane>(begin > 0 ? begin : 0);
    const Lane last = static_cast<Lane>(end < kLanes<T> ? end : kLanes<T>);
    return (lanes >= first) & (lanes < last) ? value : Vector<T>{};
}

template <typename T>
struct Root {
    Vector<T> root, inverse;
};

// at_least_zero: a NaN stays one, since the maximum of two numbers is the second where they cannot be compared.

#if defined(__AVX512F__)
// The hardware's 14 bits, doubled by one Newton step: within 2 units in the last place, several times faster than a
// division.
TWOSTAGE_INLINE Vector<float> reciprocal(Vector<float> value) {
    const Vector<float> guess =
        reinterpret_cast<Vector<float>>(_mm512_maskz_rcp14_ps(0xffff, reinterpret_cast<__m512>(value)));
    return guess + guess * (1.0f - value * guess);
}
TWOSTAGE_INLINE Root<float> square_root(Vector<float> value) {
    const Vector<float> guess =
        reinterpret_cast<Vector<float>>(_mm512_maskz_rsqrt14_ps(0xffff, reinterpret_cast<__m512>(value)));
    const Vector<float> root = value * guess, half = 0.5f * guess;
    const Vector<float> error = 0.5f - root * half;
    const Vector<float> better_half = half + half * error;
    return {root + root * error, better_half + better_half};
}
TWOSTAGE_INLINE Vector<float> at_least_zero(Vector<float> value) {
    return reinterpret_cast<Vector<float>>(
        _mm512_maskz_max_ps(0xffff, _mm512_setzero_ps(), reinterpret_cast<__m512>(value)));
}
TWOSTAGE_INLINE Vector<double> at_least_zero(Vector<double> value) {
    return reinterpret_cast<Vector<double>>(
        _mm512_maskz_max_pd(0xff, _mm512_setzero_pd(), reinterpret_cast<__m512d>(value)));
}
TWOSTAGE_INLINE Vector<double> reciprocal(Vector<double> value) { return 1.0 / value; }
TWOSTAGE_INLINE Root<double> square_root(Vector<double> value) {
    const Vector<double> root =
        reinterpret_cast<Vector<double>>(_mm512_maskz_sqrt_pd(0xff, reinterpret_cast<__m512d>(value)));
    return {root, 1.0 / root};
}
#elif defined(__AVX2__)
TWOSTAGE_INLINE Vector<float> reciprocal(Vector<float> value) {
    const Vector<float> guess = reinterpret_cast<Vector<float>>(_mm256_rcp_ps(reinterpret_cast<__m256>(value)));
    return guess + guess * (1.0f - value * guess);
}
TWOSTAGE_INLINE Root<float> square_root(Vector<float> value) {
    const Vector<float> root = reinterpret_cast<Vector<float>>(_mm256_sqrt_ps(reinterpret_cast<__m256>(value)));
    return {root, reciprocal(root)};
}
TWOSTAGE_INLINE Vector<float> at_least_zero(Vector<float> value) {
    return reinterpret_cast<Vector<float>>(_mm256_max_ps(_mm256_setzero_ps(), reinterpret_cast<__m256>(value)));
}
TWOSTAGE_INLINE Vector<double> at_least_zero(Vector<double> value) {
    return reinterpret_cast<Vector<double>>(_mm256_max_pd(_mm256_setzero_pd(), reinterpret_cast<__m256d>(value)));
}
TWOSTAGE_INLINE Vector<double> reciprocal(Vector<double> value) { return 1.0 / value; }
TWOSTAGE_INLINE Root<double> square_root(Vector<double> value) {
    const Vector<double> root = reinterpret_cast<Vector<double>>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(value)));
    return {root, 1.0 / root};
}
#else
template <typename V>
TWOSTAGE_INLINE V at_least_zero(V value) {
    const V zero{};
    return zero > value ? zero : value;
}
template <typename V>
TWOSTAGE_INLINE V reciprocal(V value) {
    return 1 / value;
}
#if defined(__aarch64__)
TWOSTAGE_INLINE Root<float> square_root(Vector<float> value) {
    const Vector<float> root = reinterpret_cast<Vector<float>>(vsqrtq_f32(reinterpret_cast<float32x4_t>(value)));
    return {root, 1.0f / root};
}
TWOSTAGE_INLINE Root<double> square_root(Vector<double> value) {
    const Vector<double> root = reinterpret_cast<Vector<double>>(vsqrtq_f64(reinterpret_cast<float64x2_t>(value)));
    return {root, 1.0 / root};
}
#else
TWOSTAGE_INLINE Root<float> square_root(Vector<float> value) {
    Vector<float> root{};
    for (int lane = 0; lane < kLanes<float>; ++lane) root[lane] = __builtin_sqrtf(value[lane]);
    return {root, 1.0f / root};
}
TWOSTAGE_INLINE Root<double> square_root(Vector<double> value) {
    Vector<double> root{};
    for (int lane = 0; lane < kLanes<double>; ++lane) root[lane] = __builtin_sqrt(value[lane]);
    return {root, 1.0 / root};
}
#endif
#endif

// A vector of a row together with its neighbours: what stands `shift` places to the right, for |shift| < kLanes.
template <typename T>
class Neighbourhood {
  public:
    TWOSTAGE_INLINE explicit Neighbourhood(const T* at) : at_(at) {
#if defined(__AVX512F__)
        before_ = load(at - kLanes<T>);
        after_ = load(at + kLanes<T>);
        own_ = load(at);
#endif
    }
    TWOSTAGE_INLINE Vector<T> operator[](int shift) const { return load(at_ + shift); }

#if defined(__AVX512F__)
    // Loads that straddle cache lines are the bottleneck of the filters along a row; a shift in registers is none.
    template <int kShift>
    TWOSTAGE_INLINE Vector<T> operator[](Constant<kShift>) const {
        if constexpr (kShift == 0)
            return own_;
        else if constexpr (kShift > 0)
            return joined<kShift>(own_, after_);
        else
            return joined<kLanes<T> + kShift>(before_, own_);
    }

  private:
    // The lanes of `low` and `high` side by side, from the given one on.
    template <int kFirst>
    static TWOSTAGE_INLINE Vector<T> joined(Vector<T> low, Vector<T> high) {
        const __m512i bits = sizeof(T) == 4 ? _mm512_maskz_alignr_epi32(0xffff, reinterpret_cast<__m512i>(high),
                                                                        reinterpret_cast<__m512i>(low), kFirst % 16)
                                            : _mm512_maskz_alignr_epi64(0xff, reinterpret_cast<__m512i>(high),
                                                                        reinterpret_cast<__m512i>(low), kFirst % 8);
        return reinterpret_cast<Vector<T>>(bits);
    }

    Vector<T> before_, own_, after_;
#else

  private:
#endif
    const T* at_;
};

template <typename V>
TWOSTAGE_INLINE V larger_of(V a, V b) {
    return a > b ? a : b;
}

// 1 / value, and 0 where the value is too small to be divided by.
template <typename T>
TWOSTAGE_INLINE Vector<T> inverse_or_zero(Vector<T> value) {
    const Vector<T> least = Vector<T>{} + T(1e-30);
    return value > least ? reciprocal(value > least ? value : least) : Vector<T>{};
}

}  // namespace
}  // namespace twostage
