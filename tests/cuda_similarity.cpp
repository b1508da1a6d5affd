// Runs the CUDA similarity kernels on a CPU (cuda_on_cpu/cuda_runtime.h) on the cases that come in on standard input,
// in buffers of exactly the right size. Built and fed by test_cuda_source.py.
//
// With the argument "checks" it looks at what needs no reference instead: how images are cut, what becomes of an error,
// the rescaling of gradients.
//
// A case is kIntegers 64-bit integers, kDoubles doubles, then the inputs that it has; the answer holds the outputs that
// it asks for, in order.
#include <sys/mman.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../csrc/cuda/plan.h"
#include "../csrc/cuda/similarity.h"
#include "cuda_runtime.h"

namespace {

constexpr int kIntegers = 18, kDoubles = 8;
enum Integer {
    kBatch,
    kChannels,
    kHeight,
    kWidth,
    kWindow,
    kSame,
    kForm,
    kType,
    kReduction,
    kHasMask,
    kHasScales,
    kHasUpstream,
    kHasValue,
    kHasMap,
    kHasPredictionGradient,
    kHasTargetGradient,
    kMultiprocessors,
    kSharedBytes,
};

bool read(void* to, std::size_t bytes) { return bytes == 0 || std::fread(to, 1, bytes, stdin) == bytes; }

template <typename T>
struct Buffer {
    std::vector<T> values;
    explicit Buffer(std::int64_t count) : values(static_cast<std::size_t>(count)) {}
    void fill() {
        if (!read(values.data(), values.size() * sizeof(T))) std::abort();
    }
    T* pointer() { return values.empty() ? nullptr : values.data(); }
    void poison() { values.assign(values.size(), static_cast<T>(std::nan(""))); }
    void print() const {
        if (!values.empty()) std::fwrite(values.data(), sizeof(T), values.size(), stdout);
    }
};

template <typename T>
void run(const std::int64_t* n, const double* d) {
    const twostage::SimilarityParams params{n[kBatch],
                                            n[kChannels],
                                            n[kHeight],
                                            n[kWidth],
                                            static_cast<int>(n[kWindow]),
                                            n[kSame] != 0,
                                            static_cast<twostage::Form>(n[kForm]),
                                            d[0],
                                            d[1],
                                            d[2],
                                            d[3],
                                            d[4],
                                            d[5],
                                            d[6],
                                            d[7]};
    const auto type = static_cast<twostage::ImageType>(n[kType]);
    const auto reduction = static_cast<twostage::Reduction>(n[kReduction]);
    const std::int64_t cut = params.same_padding ? 0 : params.window_size - 1;
    const std::int64_t pixels = n[kBatch] * n[kChannels] * n[kHeight] * n[kWidth];
    const std::int64_t windows = n[kBatch] * n[kChannels] * (n[kHeight] - cut) * (n[kWidth] - cut);
    const std::int64_t pixel_bytes = type == twostage::ImageType::kFloat64   ? 8
                                     : type == twostage::ImageType::kFloat32 ? 4
                                                                             : 2;
    Buffer<unsigned char> prediction(pixels * pixel_bytes), target(pixels * pixel_bytes);
    Buffer<T> sigma(n[kBatch]), mask(n[kHasMask] ? n[kBatch] * n[kHeight] * n[kWidth] : 0);
    Buffer<T> scales(n[kHasScales] ? 2 * n[kBatch] : 0), upstream(n[kHasUpstream] ? windows : 0);
    prediction.fill(), target.fill(), sigma.fill(), mask.fill(), scales.fill(), upstream.fill();
    Buffer<T> value(!n[kHasValue] ? 0 : reduction == twostage::Reduction::kSample ? n[kBatch] : 1);
    Buffer<T> map(n[kHasMap] ? windows : 0);
    Buffer<T> prediction_gradient(n[kHasPredictionGradient] ? pixels : 0);
    Buffer<T> target_gradient(n[kHasTargetGradient] ? pixels : 0);
    value.poison(), map.poison(), prediction_gradient.poison(), target_gradient.poison();
    const twostage::SimilarityBuffers<T> buffers{prediction.pointer(),
                                                 target.pointer(),
                                                 type,
                                                 sigma.pointer(),
                                                 mask.pointer(),
                                                 reinterpret_cast<const twostage::MaskScale<T>*>(scales.pointer()),
                                                 upstream.pointer(),
                                                 value.pointer(),
                                                 map.pointer(),
                                                 prediction_gradient.pointer(),
                                                 target_gradient.pointer()};
    cuda_on_cpu::machine().multiprocessors = static_cast<int>(n[kMultiprocessors]);
    cuda_on_cpu::machine().shared_bytes = static_cast<int>(n[kSharedBytes]);
    Buffer<unsigned char> workspace(twostage::similarity_cuda_workspace(params, buffers, 0));
    const auto stream = reinterpret_cast<cudaStream_t>(&workspace);
    twostage::similarity_cuda(params, buffers, reduction, 0, workspace.pointer(), stream);
    if (cuda_on_cpu::machine().launches > 0 && cuda_on_cpu::machine().latest_stream != stream) std::abort();
    value.print(), map.print(), prediction_gradient.print(), target_gradient.print();
}

int failures = 0;

void expect(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "not so: %s\n", what);
    ++failures;
}

// Threads cover the windows and pixels of every strip; strips and segments cover the image.
void check_plans() {
    const auto bytes = [](int threads) { return static_cast<std::size_t>(340 * threads + 4096); };
    for (const bool gradient : {false, true})
        for (const int columns : {1, 2})
            for (const int lead : {0, 1, 5})
                for (int width = 2 * lead + 1; width < 5000; width += 1 + width / 7)
                    for (const int height : {2 * lead + 1, 40, 1080})
                        for (const std::int64_t planes : {1, 48, 3000}) {
                            const twostage::StripShape shape{columns, gradient, bytes};
                            const twostage::Device device{132, 99 * 1024, 228 * 1024};
                            const twostage::StripPlan plan =
                                twostage::choose_plan(height, width, lead, planes, shape, device);
                            bool good = plan.threads > 0 && plan.threads % 32 == 0 && plan.threads <= 256 &&
                                        plan.segments >= 1 && plan.segments <= height;
                            for (int strip = 0; strip < plan.strips; ++strip) {
                                const twostage::StripColumns c =
                                    twostage::strip_columns(width, lead, plan.strips, strip, gradient, columns);
                                good = good && c.pixel_begin < c.pixel_end && c.window_begin < c.window_end &&
                                       c.base <= c.window_begin && c.base + columns * plan.threads >= c.window_end &&
                                       c.pixel_begin - c.base <= 5 &&
                                       (!gradient || columns * plan.threads >= c.pixel_end - c.pixel_begin);
                            }
                            expect(good, "a plan covers the image");
                        }
}

template <typename Call>
std::string error_of(Call&& call) {
    try {
        call();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "";
}

void check_errors() {
    std::vector<float> pixels(144), sigma(1, 1.5f), gradient(144);
    float value = 0;
    twostage::SimilarityParams params{1, 1, 12, 12, 11, false, twostage::Form::kProduct, 0, 0, 0, 1e-4, 9e-4, 0, 0, 1};
    twostage::SimilarityBuffers<float> buffers{};
    buffers.prediction = buffers.target = pixels.data();
    buffers.type = twostage::ImageType::kFloat32;
    buffers.sigma = sigma.data();
    buffers.value = &value;
    std::vector<unsigned char> workspace(4096);
    const auto call = [&] {
        twostage::similarity_cuda(params, buffers, twostage::Reduction::kMean, 0, workspace.data(), nullptr);
    };
    cuda_on_cpu::machine().fail_next = cudaErrorInvalidConfiguration;
    expect(error_of(call).find("invalid configuration argument (cudaErrorInvalidConfiguration)") != std::string::npos,
           "a failed launch raises in CUDA's words");
    expect(error_of(call).empty(), "the next launch does not find the error of the one before");
    params.window_size = 13;
    expect(error_of(call).find("3 to 11 taps, not 13") != std::string::npos, "a larger window is refused");
    cuda_on_cpu::machine().devices = 2;
    params.window_size = 11;
    twostage::similarity_cuda(params, buffers, twostage::Reduction::kMean, 1, workspace.data(), nullptr);
    expect(cuda_on_cpu::machine().device == 1, "a call runs on the device that is named");
    expect(error_of([&] {
               twostage::similarity_cuda(params, buffers, twostage::Reduction::kMean, 7, workspace.data(), nullptr);
           }).find("cudaSetDevice") != std::string::npos,
           "a device that is not there is refused");
}

template <typename T>
void check_rescaling() {
    for (const std::int64_t samples : {1, 3})
        for (const std::int64_t factors : {std::int64_t{1}, samples}) {
            constexpr std::int64_t kCount = 5003;
            std::vector<T> values(static_cast<std::size_t>(samples * kCount)), factor;
            for (std::size_t i = 0; i < values.size(); ++i) values[i] = T(i % 97) - 48;
            for (std::int64_t i = 0; i < factors; ++i) factor.push_back(T(i) - T(0.5));
            const std::vector<T> before = values;
            twostage::rescale_cuda(values.data(), factor.data(), samples, kCount, factors, 0, nullptr);
            bool good = true;
            for (std::size_t i = 0; i < values.size(); ++i)
                good = good && values[i] == before[i] * factor[factors == 1 ? 0 : i / kCount];
            expect(good, "values are multiplied by their sample's factor");
        }
    void* forbidden = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const T ones[4] = {1, 1, 1, 1};
    for (const std::int64_t factors : {1, 4})
        twostage::rescale_cuda(static_cast<T*>(forbidden), ones, 4, 64, factors, 0, nullptr);
    munmap(forbidden, 4096);
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1 && std::string(arguments[1]) == "checks") {
        check_plans();
        check_errors();
        check_rescaling<float>();
        check_rescaling<double>();
        return failures ? 1 : 0;
    }
    std::int64_t integers[kIntegers];
    double doubles[kDoubles];
    while (read(integers, sizeof integers) && read(doubles, sizeof doubles))
        if (integers[kType] == static_cast<int>(twostage::ImageType::kFloat64))
            run<double>(integers, doubles);
        else
            run<float>(integers, doubles);
    return 0;
}
