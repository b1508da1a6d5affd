// A processor's multiply-add rate in float32: threads that do nothing else.
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
using Lanes = float __attribute__((vector_size(kBytes)));
constexpr int kChains = 12;  // independent, to hide an instruction's latency; they and two factors fit in 16 registers

float multiply_add(std::int64_t turns, float factor, float summand) {
    Lanes chain[kChains];
    const Lanes factors = factor - Lanes{}, summands = summand - Lanes{};
    for (int i = 0; i < kChains; ++i) chain[i] = summands + static_cast<float>(i);
    for (std::int64_t turn = 0; turn < turns; ++turn)
        for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * factors + summands;
    float sum = 0;
    for (const Lanes& lanes : chain) sum += lanes[0];
    return sum;
}

}  // namespace

// Multiply-adds a second over `turns` turns on each of `threads` threads; 0 where the result is not what it must be.
extern "C" double multiply_add_rate(int threads, std::int64_t turns) {
    std::vector<float> sums(static_cast<std::size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> team;
    for (float& sum : sums) team.emplace_back([&sum, turns] { sum = multiply_add(turns, 0.5f, 1.0f); });
    for (std::thread& thread : team) thread.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    for (float sum : sums)
        if (sum != 2.0f * kChains) return 0;  // value = value / 2 + 1 ends at 2
    return static_cast<double>(turns) * threads * kChains * (kBytes / 4) / seconds.count();
}
