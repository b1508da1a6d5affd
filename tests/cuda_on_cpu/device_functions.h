// What CUDA offers within a kernel: barriers, votes and shuffles, atomics, loads, arithmetic. Included by
// cuda_runtime.h.
#pragma once

inline void __syncthreads() { cuda_on_cpu::block().all.wait(); }
inline int __syncthreads_count(int predicate) {
    std::vector<int>& votes = cuda_on_cpu::block().votes;
    votes[static_cast<std::size_t>(cuda_on_cpu::linear_thread)] = predicate != 0;
    __syncthreads();
    int count = 0;
    for (const int vote : votes) count += vote;
    __syncthreads();
    return count;
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) > 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate) == cuda_on_cpu::block().threads; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_cpu::sync_lanes(mask); }

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return cuda_on_cpu::exchange(mask, predicate != 0, [&](auto of_lane) {
        unsigned set = 0;
        for (int lane = 0; lane < warpSize; ++lane)
            if ((cuda_on_cpu::present(mask) >> lane & 1u) && of_lane(lane)) set |= 1u << lane;
        return set;
    });
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) == cuda_on_cpu::present(mask);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize) {
    const int own = cuda_on_cpu::linear_thread % warpSize;
    return cuda_on_cpu::shuffle(mask, value, own / width * width + lane % width, true);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize) {
    const int own = cuda_on_cpu::linear_thread % warpSize, from = own ^ bits;
    return cuda_on_cpu::shuffle(mask, value, from % warpSize, from / width <= own / width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
    const int own = cuda_on_cpu::linear_thread % warpSize, from = own - static_cast<int>(delta);
    const bool valid = from >= own / width * width;
    return cuda_on_cpu::shuffle(mask, value, valid ? from : own, valid);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
    const int own = cuda_on_cpu::linear_thread % warpSize, from = own + static_cast<int>(delta);
    const bool valid = from < own / width * width + width;
    return cuda_on_cpu::shuffle(mask, value, valid ? from : own, valid);
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// `change` gives the new value from the old one.
template <typename T, typename Change>
T atomic_update(T* address, Change&& change) {
    T old;
    __atomic_load(address, &old, __ATOMIC_SEQ_CST);
    for (;;) {
        T next = change(old);
        if (__atomic_compare_exchange(address, &old, &next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return old;
    }
}
template <typename T>
T atomicAdd(T* address, T value) {
    return atomic_update(address, [&](T old) { return old + value; });
}
template <typename T>
T atomicMax(T* address, T value) {
    return atomic_update(address, [&](T old) { return old > value ? old : value; });
}
template <typename T>
T atomicMin(T* address, T value) {
    return atomic_update(address, [&](T old) { return old < value ? old : value; });
}
template <typename T>
T atomicOr(T* address, T value) {
    return atomic_update(address, [&](T old) { return old | value; });
}
template <typename T>
T atomicExch(T* address, T value) {
    return atomic_update(address, [&](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, T compare, T value) {
    return atomic_update(address, [&](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned last) {
    return atomic_update(address, [&](unsigned old) { return old >= last ? 0 : old + 1; });
}

template <typename T>
T __ldg(const T* address) {
    return *address;
}
template <typename T>
T __ldcs(const T* address) {
    return *address;
}
template <typename T>
void __stcs(T* address, T value) {
    *address = value;
}

inline float __fdividef(float a, float b) { return cuda_on_cpu::approximate(a / b); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float rsqrtf(float a) {
    return cuda_on_cpu::approximate(static_cast<float>(1.0 / sqrt(static_cast<double>(a))));
}
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float __expf(float a) { return cuda_on_cpu::approximate(expf(a)); }
inline float __logf(float a) { return cuda_on_cpu::approximate(logf(a)); }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
inline unsigned __float_as_uint(float a) {
    unsigned bits;
    std::memcpy(&bits, &a, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned a) {
    float value;
    std::memcpy(&value, &a, sizeof value);
    return value;
}
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }

template <typename T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
