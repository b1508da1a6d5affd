// Runs the CUDA paste kernels on a CPU (cuda_on_cpu/cuda_runtime.h) on the cases that come in on standard input, in
// buffers of exactly the right size. Built and fed by test_cuda_paste.py.
//
// With the argument "checks" it looks at what needs no reference instead: what becomes of an error, what is refused,
// batches of many images.
//
// A case is kIntegers 64-bit integers, two doubles (the value range), then the inputs that it has, in the order of
// PasteImages and PastePolygons; the answer holds the memory of `out`, then the opacity.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../csrc/cuda/paste.h"
#include "cuda_runtime.h"

namespace {

using twostage::PixelType;

enum Integer {
    kBatch,
    kChannels,
    kHeight,
    kWidth,
    kType,
    kSourceType,
    kInPlace,
    kTargetElements,  // of its memory
    kSources,
    kSourceHeight,
    kSourceWidth,
    kSourceElements,
    kPolygons,
    kTargetStride,
    kSourceStride = kTargetStride + 4,
    kHasLayout = kSourceStride + 4,
    kHasImageIndex,
    kHasStrength,
    kHasGain,
    kHasOffset,
    kHasMode,
    kHasEdge,
    kIntegers,
};

template <typename T>
struct Buffer {
    std::vector<T> values;
    bool given;
    Buffer(std::int64_t count, bool given_ = true)
        : values(static_cast<std::size_t>(given_ ? count : 0)), given(given_) {
        const std::size_t bytes = values.size() * sizeof(T);
        if (bytes > 0 && std::fread(values.data(), 1, bytes, stdin) != bytes) std::abort();
    }
    // Null where it was not given; where it is empty an address all the same, of nothing.
    const T* pointer() const {
        static const T nothing{};
        return !given ? nullptr : values.empty() ? &nothing : values.data();
    }
};

template <typename T>
void print(const std::vector<T>& values) {
    if (!values.empty()) std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

std::int64_t bytes_of_pixel(std::int64_t type) {
    constexpr std::int64_t kBytes[] = {1, 2, 2, 4, 8};
    return kBytes[type];
}

template <typename T>
void run(const std::int64_t* n, const double* range) {
    const std::int64_t count = n[kPolygons], channels = n[kChannels];
    const Buffer<unsigned char> given(n[kTargetElements] * bytes_of_pixel(n[kType]));
    const Buffer<unsigned char> source(n[kSourceElements] * bytes_of_pixel(n[kSourceType]));
    const Buffer<std::int64_t> layout(3 * n[kSources], n[kHasLayout] != 0);
    const Buffer<T> vertices(count * 14);
    const Buffer<std::int64_t> vertex_count(count), image_index(count, n[kHasImageIndex] != 0), source_index(count);
    const Buffer<T> transform(count * 6), sigma(count), strength(count, n[kHasStrength] != 0);
    const Buffer<T> gain(count * channels, n[kHasGain] != 0), offset(count * channels, n[kHasOffset] != 0);
    const Buffer<std::int64_t> mode(count, n[kHasMode] != 0);
    const Buffer<T> amplitude(count, n[kHasEdge] != 0), grain(count, n[kHasEdge] != 0);
    const Buffer<std::int64_t> seed(count, n[kHasEdge] != 0);

    std::vector<unsigned char> target = given.values, out(n[kInPlace] ? 0 : target.size(), 0xff);
    std::vector<T> opacity(static_cast<std::size_t>(n[kBatch] * n[kHeight] * n[kWidth]), T(NAN));
    twostage::PasteImages images{};
    images.batch = n[kBatch];
    images.channels = channels;
    images.height = n[kHeight];
    images.width = n[kWidth];
    images.type = static_cast<PixelType>(n[kType]);
    images.target = target.data();
    images.out = n[kInPlace] ? target.data() : out.data();
    std::memcpy(images.image_stride, n + kTargetStride, sizeof images.image_stride);
    images.source_type = static_cast<PixelType>(n[kSourceType]);
    images.source = source.pointer();
    images.source_elements = n[kSourceElements];
    images.sources = n[kSources];
    images.source_height = n[kSourceHeight];
    images.source_width = n[kSourceWidth];
    std::memcpy(images.source_stride, n + kSourceStride, sizeof images.source_stride);
    images.layout = layout.pointer();
    images.low = range[0];
    images.high = range[1];
    const twostage::PastePolygons<T> polygons{count,
                                              vertices.pointer(),
                                              vertex_count.pointer(),
                                              image_index.pointer(),
                                              source_index.pointer(),
                                              transform.pointer(),
                                              sigma.pointer(),
                                              strength.pointer(),
                                              gain.pointer(),
                                              offset.pointer(),
                                              mode.pointer(),
                                              amplitude.pointer(),
                                              grain.pointer(),
                                              seed.pointer()};
    cuda_on_cpu::machine().shared_bytes = 64 * 1024;  // the least of all GPUs that the kernels are for
    const int before = cuda_on_cpu::machine().launches;
    const auto stream = reinterpret_cast<cudaStream_t>(&images);
    twostage::paste_defects_cuda<T>(images, polygons, opacity.data(), 0, stream);
    if (n[kBatch] > 0 &&
        (cuda_on_cpu::machine().launches != before + 1 || cuda_on_cpu::machine().latest_stream != stream))
        std::abort();
    if (!n[kInPlace] && target != given.values) std::abort();
    print(n[kInPlace] ? target : out);
    print(opacity);
}

int failures = 0;

void expect(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "not so: %s\n", what);
    ++failures;
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
    std::vector<float> target(64, 1.0f), out(64), opacity(64);
    twostage::PasteImages images{};
    images.batch = images.channels = 1;
    images.height = images.width = 8;
    images.type = images.source_type = PixelType::kFloat32;
    images.target = images.source = target.data();
    images.out = out.data();
    for (const int axis : {0, 1, 2, 3})
        images.image_stride[axis] = images.source_stride[axis] = axis < 2 ? 64 : axis == 2 ? 8 : 1;
    images.sources = 1;
    images.source_height = images.source_width = 8;
    const twostage::PastePolygons<float> none{};
    const auto call = [&](int device) {
        return error_of([&] { twostage::paste_defects_cuda(images, none, opacity.data(), device, nullptr); });
    };
    cuda_on_cpu::machine().fail_next = cudaErrorInvalidConfiguration;
    expect(call(0).find("paste_defects: invalid configuration argument (cudaErrorInvalidConfiguration)") == 0,
           "a failed launch raises in CUDA's words");
    expect(call(0).empty() && out == target, "the next launch does not find the error of the one before");
    cuda_on_cpu::machine().devices = 2;
    expect(call(1).empty() && cuda_on_cpu::machine().device == 1, "a call runs on the device that is named");
    expect(call(7).find("cudaSetDevice") == 0, "a device that is not there is refused");
    images.width = twostage::kLongestCudaTarget + 1;
    expect(call(0).find("a target width of at most 2097120, not 2097121") != std::string::npos,
           "a wide target is refused");
    images.width = 8;
    images.source_height = twostage::kLongestCudaSource + 1;
    expect(call(0).find("a source height of at most 134217728") != std::string::npos, "a tall source is refused");
    images.source_height = 8;
    images.source_stride[2] = twostage::kLongestCudaStep / 4 + 1;
    expect(call(0).find("bytes between two rows of a source") != std::string::npos, "a long step is refused");
    images.source_stride[2] = 8;
    images.channels = twostage::kMostCudaChannels + 1;
    expect(call(0).find("a number of channels of at most 65536") != std::string::npos, "too many channels are refused");
}

// More images than a grid may have layers.
void check_many_images() {
    constexpr std::int64_t kImages = 2 * 5 + 3;
    cuda_on_cpu::machine().layers = 5;
    std::vector<unsigned char> target(kImages), out(kImages, 99);
    std::vector<float> opacity(kImages, -1.0f);
    for (std::int64_t i = 0; i < kImages; ++i) target[static_cast<std::size_t>(i)] = static_cast<unsigned char>(i);
    const unsigned char source = 200;
    twostage::PasteImages images{};
    images.batch = kImages;
    images.channels = images.height = images.width = 1;
    images.type = images.source_type = PixelType::kUint8;
    images.target = target.data();
    images.out = out.data();
    images.source = &source;
    for (const int axis : {0, 1, 2, 3}) images.image_stride[axis] = images.source_stride[axis] = 1;
    images.sources = images.source_height = images.source_width = images.source_elements = 1;
    images.high = 255;
    const float vertices[14] = {-1, -1, 3, -1, -1, 3}, transform[6] = {1, 0, 0, 0, 1, 0}, sigma = 0;
    const std::int64_t vertex_count = 3, owner = kImages - 1, source_index = 0;
    twostage::PastePolygons<float> polygons{};
    polygons.count = 1;
    polygons.vertices = vertices;
    polygons.vertex_count = &vertex_count;
    polygons.image_index = &owner;
    polygons.source_index = &source_index;
    polygons.transform = transform;
    polygons.blur_sigma = &sigma;
    twostage::paste_defects_cuda(images, polygons, opacity.data(), 0, nullptr);
    target.back() = source;
    expect(out == target, "every image of a large batch is written");
    bool good = opacity.back() == 1;
    for (std::int64_t i = 0; i + 1 < kImages; ++i) good = good && opacity[static_cast<std::size_t>(i)] == 0;
    expect(good, "every opacity of a large batch is written");
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1 && std::string(arguments[1]) == "checks") {
        check_errors();
        check_many_images();
        return failures ? 1 : 0;
    }
    std::int64_t integers[kIntegers];
    double range[2];
    while (std::fread(integers, sizeof integers, 1, stdin) == 1 && std::fread(range, sizeof range, 1, stdin) == 1)
        (integers[kType] == static_cast<int>(PixelType::kFloat64) ? run<double> : run<float>)(integers, range);
    return 0;
}
