// Runs CUDA source on a CPU, to find out in a test what a GPU would do: compile the .cu files as C++ with this folder
// before CUDA's on the include path,
//
//     g++ -std=c++20 -x c++ -I tests/cuda_on_cpu csrc/cuda/rescale.cu ... -pthread
//
// and under the address, undefined-behaviour or thread sanitizers as one likes. It is for small shapes.
//
// A block's threads are real threads and run at once; blocks run one after the other, in order. Barriers are barriers
// (threads that have returned are not waited for); warp votes and shuffles wait for the lanes that their mask names.
// So a missing __syncthreads is a data race that the thread sanitizer sees, and shared memory has exactly the size
// that was asked for, so that the address sanitizer sees a bad index. Dynamic shared memory is filled with NaN before
// every block. Divisions and roots that are approximate on a GPU are off by a unit in the last place here too.
//
// The source under test
//   * launches by cuda_on_cpu::launch(kernel, grid, block, shared_bytes, stream, arguments...) where __CUDACC__ is not
//     defined, instead of by kernel<<<...>>>(...),
//   * takes dynamic shared memory from cuda_on_cpu::dynamic_shared_memory() there, instead of declaring it extern,
//   * keeps inline assembly under __CUDA_ARCH__, with plain C++ beside it.
//
// "Device memory" is the host's. There are cuda_on_cpu::machine().devices devices with the attributes that it holds;
// set `fail_next` to see what a caller does with an error. Streams are addresses that launches only write down.
#pragma once

#include <math.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// --- runtime ------------------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMaxGridDimZ,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = struct CUstream_st*;

namespace cuda_on_cpu {

struct Machine {
    int devices = 1, device = 0;
    int multiprocessors = 4, shared_bytes = 99 * 1024, shared_bytes_in_all = 100 * 1024, major = 9, minor = 0;
    int layers = 65535;  // of a grid
    cudaError_t fail_next = cudaSuccess, latest = cudaSuccess;
    cudaStream_t latest_stream = nullptr;
    int launches = 0;
};

inline Machine& machine() {
    static Machine it;
    return it;
}

// Waits until all who take part are there. Who leaves is not waited for any more.
class Barrier {
  public:
    void reset(int parties) { parties_ = parties; }
    unsigned round() const { return round_.load(std::memory_order_acquire); }
    void wait() { wait_for(-1); }
    // With a number of parties of its own for this occasion.
    void wait_for(int parties) {
        const unsigned round = round_.load(std::memory_order_relaxed);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (++waiting_ == (parties < 0 ? parties_ : parties)) return release();
        }
        while (round_.load(std::memory_order_acquire) == round) round_.wait(round, std::memory_order_acquire);
    }
    void leave() {
        const std::lock_guard<std::mutex> lock(mutex_);
        --parties_;
        if (waiting_ > 0 && waiting_ == parties_) release();
    }

  private:
    void release() {
        waiting_ = 0;
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }
    std::mutex mutex_;
    int parties_ = 0, waiting_ = 0;
    std::atomic<unsigned> round_{0};
};

constexpr int kMostThreads = 1024, kMostWarps = kMostThreads / warpSize;

// Lanes that wait for each other, and what they hand over: in turns, so that nobody overwrites what others still read.
struct Lanes {
    Barrier barrier;
    std::uint64_t slots[2][warpSize];
};

struct Warp {
    Lanes groups[warpSize];  // named by their first lane
};

struct Block {
    Barrier all;      // __syncthreads
    Barrier between;  // from one block to the next
    Warp warps[kMostWarps];
    int threads = 0;
    std::unique_ptr<unsigned char[]> shared;
    std::uintptr_t shared_at = 0;
    std::vector<int> votes;
};

inline Block& block() {
    static Block it;
    return it;
}

inline thread_local int linear_thread = 0;

inline unsigned char* dynamic_shared_memory() { return reinterpret_cast<unsigned char*>(block().shared_at); }

// Memory of exactly this size whose beginning is a multiple of 16: new gives no less.
inline void renew_shared_memory(std::size_t bytes) {
    block().shared.reset(new unsigned char[bytes]);
    block().shared_at = reinterpret_cast<std::uintptr_t>(block().shared.get());
    if (block().shared_at % 16 != 0) std::abort();
    std::memset(block().shared.get(), 0xff, bytes);
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 shape, std::size_t shared_bytes, cudaStream_t stream,
            const Arguments&... arguments) {
    Machine& m = machine();
    const int threads = static_cast<int>(shape.x * shape.y * shape.z);
    m.latest_stream = stream;
    if (m.fail_next != cudaSuccess) {
        m.latest = m.fail_next;
        m.fail_next = cudaSuccess;
        return;
    }
    if (threads == 0 || threads > kMostThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > static_cast<unsigned>(m.layers) || shared_bytes > static_cast<std::size_t>(m.shared_bytes)) {
        m.latest = cudaErrorInvalidConfiguration;
        return;
    }
    ++m.launches;
    blockDim = shape;
    gridDim = grid;
    block().threads = threads;
    block().between.reset(threads);
    block().votes.assign(static_cast<std::size_t>(threads), 0);
    // As a kernel's parameters are: copied when it is launched, the same for all threads.
    const std::tuple<Parameters...> parameters(arguments...);
    const auto run = [&](int thread) {
        linear_thread = thread;
        const unsigned index = static_cast<unsigned>(thread);
        threadIdx = dim3(index % shape.x, index / shape.x % shape.y, index / (shape.x * shape.y));
        for (unsigned z = 0; z < grid.z; ++z)
            for (unsigned y = 0; y < grid.y; ++y)
                for (unsigned x = 0; x < grid.x; ++x) {
                    if (thread == 0) {
                        block().all.reset(threads);
                        renew_shared_memory(shared_bytes);
                    }
                    block().between.wait();
                    blockIdx = dim3(x, y, z);
                    std::apply(kernel, parameters);
                    block().all.leave();
                    block().between.wait();
                }
    };
    std::vector<std::thread> running;
    for (int thread = 0; thread < threads; ++thread) running.emplace_back(run, thread);
    for (std::thread& thread : running) thread.join();
}

inline Warp& warp() { return block().warps[linear_thread / warpSize]; }

inline unsigned present(unsigned mask) {
    const int left = block().threads - linear_thread / warpSize * warpSize;
    return left >= warpSize ? mask : mask & ((1u << left) - 1);
}

inline void sync_lanes(unsigned mask) {
    mask = present(mask);
    warp().groups[__builtin_ctz(mask)].barrier.wait_for(__builtin_popcount(mask));
}

// Every lane of the mask hands over a value; `take` sees those of the warp.
template <typename T, typename Take>
auto exchange(unsigned mask, T value, Take&& take) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    Lanes& group = warp().groups[__builtin_ctz(present(mask))];
    std::uint64_t* slots = group.slots[group.barrier.round() % 2];
    std::memcpy(&slots[linear_thread % warpSize], &value, sizeof value);
    sync_lanes(mask);
    return take([&](int lane) {
        T of_lane;
        std::memcpy(&of_lane, &slots[lane], sizeof of_lane);
        return of_lane;
    });
}

template <typename T>
T shuffle(unsigned mask, T value, int lane, bool valid) {
    const bool there = valid && (present(mask) >> lane & 1u);
    return exchange(mask, value, [&](auto of_lane) { return there ? of_lane(lane) : value; });
}

// Off by a unit in the last place, up or down as the bits have it.
inline float approximate(float exact) {
    std::uint32_t bits;
    std::memcpy(&bits, &exact, sizeof bits);
    const std::uint32_t mixed = bits * 2654435761u;
    const bool ordinary = exact != 0 && exact - exact == 0;
    return ordinary ? nextafterf(exact, mixed >> 31 ? INFINITY : 0.0f) : exact;
}

}  // namespace cuda_on_cpu

inline cudaError_t cudaGetLastError() {
    const cudaError_t latest = cuda_on_cpu::machine().latest;
    cuda_on_cpu::machine().latest = cudaSuccess;
    return latest;
}
inline const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "invalid argument";
}
inline const char* cudaGetErrorName(cudaError_t status) {
    return status == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration" : "cudaErrorInvalidValue";
}
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = cuda_on_cpu::machine().devices;
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = cuda_on_cpu::machine().device;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= cuda_on_cpu::machine().devices) return cudaErrorInvalidValue;
    cuda_on_cpu::machine().device = device;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    const cuda_on_cpu::Machine& m = cuda_on_cpu::machine();
    *value = which == cudaDevAttrMultiProcessorCount                ? m.multiprocessors
             : which == cudaDevAttrMaxSharedMemoryPerBlockOptin     ? m.shared_bytes
             : which == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? m.shared_bytes_in_all
             : which == cudaDevAttrMaxGridDimZ                      ? m.layers
             : which == cudaDevAttrComputeCapabilityMajor           ? m.major
                                                                    : m.minor;
    return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int bytes) {
    return bytes <= cuda_on_cpu::machine().shared_bytes ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}

#include "device_functions.h"
