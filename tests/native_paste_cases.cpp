// Runs the paste kernels on small and awkward batches, in buffers of exactly the right size. Prints a line for every
// case: the sums of images and opacity, and how many pixels were touched. Exits with 1 where an output is left out or
// instruction sets disagree. Built with sanitizers by test_native_sanitizers.py and for other processors by
// test_native_arm.py.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "../csrc/cpu/tile.h"
#include "../csrc/instruction_sets.h"
#include "../csrc/paste.h"
#include "../csrc/similarity.h"

namespace {

using twostage::PixelType;

struct Random {
    std::uint64_t state;

    double operator()() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<double>(state >> 40) / 16777216.0;
    }
    std::int64_t below(std::int64_t count) { return static_cast<std::int64_t>((*this)() * static_cast<double>(count)); }
};

struct Case {
    std::int64_t batch, channels, height, width;
    PixelType type, source_type;
    bool rows_of_pixels, packed, in_place, extras, slots;
    std::uint64_t seed;
};

std::int64_t bytes_of(PixelType type) {
    return type == PixelType::kUint8 ? 1 : type == PixelType::kFloat32 ? 4 : type == PixelType::kFloat64 ? 8 : 2;
}

// Values below 1, or any bytes.
std::vector<unsigned char> pixels(std::int64_t count, PixelType type, Random& random) {
    std::vector<unsigned char> made(static_cast<std::size_t>(count * bytes_of(type)));
    for (std::int64_t i = 0; i < count; ++i) {
        unsigned char* const at = made.data() + i * bytes_of(type);
        const double value = random();
        const float single = static_cast<float>(value);
        const auto half = static_cast<std::uint16_t>(0x3800 + random.below(0x3ff)),
                   bfloat = std::uint16_t(half + 0x700);
        if (type == PixelType::kUint8) *at = static_cast<unsigned char>(256 * value);
        if (type == PixelType::kFloat32) std::memcpy(at, &single, 4);
        if (type == PixelType::kFloat64) std::memcpy(at, &value, 8);
        if (type == PixelType::kFloat16) std::memcpy(at, &half, 2);
        if (type == PixelType::kBfloat16) std::memcpy(at, &bfloat, 2);
    }
    return made;
}

template <typename T>
struct Results {
    std::vector<unsigned char> out;
    std::vector<T> opacity;
    std::int64_t unusable;
};

template <typename T>
Results<T> run(const Case& c, int instruction_set, int threads, bool spoilt) {
    Random random{c.seed};
    const std::int64_t values = c.batch * c.channels * c.height * c.width, sources = 3, polygons = 4 * c.batch;
    std::vector<unsigned char> target = pixels(values, c.type, random);
    std::vector<unsigned char> out = c.in_place ? std::vector<unsigned char>() : target;
    if (!c.in_place) std::memset(out.data(), 0xff, out.size());
    twostage::PasteImages images{};
    images.batch = c.batch;
    images.channels = c.channels;
    images.height = c.height;
    images.width = c.width;
    images.type = c.type;
    images.target = target.data();
    images.out = c.in_place ? target.data() : out.data();
    const std::int64_t plane = c.height * c.width;
    const std::int64_t planes[4] = {c.channels * plane, plane, c.width, 1};
    const std::int64_t rows[4] = {c.channels * plane, 1, c.width * c.channels, c.channels};
    std::memcpy(images.image_stride, c.rows_of_pixels ? rows : planes, sizeof planes);
    images.source_type = c.source_type;
    images.sources = sources;
    std::vector<std::int64_t> layout;
    if (c.packed) {
        const std::int64_t sizes[3][2] = {{1, 1}, {7, 3}, {2, 19}};
        for (const auto& size : sizes) {
            layout.insert(layout.end(), {images.source_elements, size[0], size[1]});
            images.source_elements += c.channels * size[0] * size[1];
        }
    } else {
        images.source_height = 9;
        images.source_width = 6;
        images.source_elements = sources * c.channels * 54;
        const std::int64_t stride[4] = {c.channels * 54, 54, 6, 1};
        std::memcpy(images.source_stride, stride, sizeof stride);
    }
    images.layout = c.packed ? layout.data() : nullptr;
    const std::vector<unsigned char> source = pixels(images.source_elements, c.source_type, random);
    images.source = source.data();
    images.high = c.type == PixelType::kUint8 ? 255 : 1;

    std::vector<T> vertices, transform, sigma, strength, gain, offset, amplitude, grain;
    std::vector<std::int64_t> counts, owners, from, modes, seeds;
    for (std::int64_t p = 0; p < polygons; ++p) {
        const bool empty = random() < 0.2;
        const T nan = std::numeric_limits<T>::quiet_NaN();
        counts.push_back(empty ? 0 : 3 + random.below(5));
        owners.push_back(empty ? -9 : random.below(c.batch));
        from.push_back(empty ? 99 : random.below(sources));
        for (int i = 0; i < 7; ++i) {
            const bool used = i < counts.back();
            const double far = random() < 0.05 ? 1e30 : 1;
            vertices.push_back(used ? T((1.6 * random() - 0.3) * double(c.width) * far) : nan);
            vertices.push_back(used ? T((1.6 * random() - 0.3) * double(c.height)) : nan);
        }
        for (int i = 0; i < 6; ++i) transform.push_back(T((random() - 0.5) * (random() < 0.1 ? 1e20 : 8)));
        sigma.push_back(random() < 0.4 ? T(0) : T(random() * random() * 64));
        strength.push_back(T(random()));
        for (int i = 0; i < c.channels; ++i) {
            gain.push_back(T(2 * random()));
            offset.push_back(T(random() - 0.5));
        }
        modes.push_back(random.below(6));
        amplitude.push_back(random() < 0.3 ? T(0) : T(random() * 20));
        grain.push_back(T(1 + 9 * random()));
        seeds.push_back(random.below(1 << 24) - 1000);
    }
    if (spoilt) {
        counts.assign(static_cast<std::size_t>(polygons), 3);
        counts[0] = 8;
        owners[1] = c.batch;
        from[2] = -1;
        sigma[3] = T(65);
    }
    const twostage::PastePolygons<T> description{polygons,
                                                 vertices.data(),
                                                 counts.data(),
                                                 c.slots ? nullptr : owners.data(),
                                                 from.data(),
                                                 transform.data(),
                                                 sigma.data(),
                                                 c.extras ? strength.data() : nullptr,
                                                 c.extras ? gain.data() : nullptr,
                                                 c.extras ? offset.data() : nullptr,
                                                 c.extras ? modes.data() : nullptr,
                                                 c.extras ? amplitude.data() : nullptr,
                                                 c.extras ? grain.data() : nullptr,
                                                 c.extras ? seeds.data() : nullptr};
    std::vector<T> opacity(static_cast<std::size_t>(c.batch * plane), T(NAN));
    // What the kernel does not write itself is NaN.
    std::memset(twostage::thread_scratch(1 << 21), 0xff, 1 << 21);
    const std::int64_t unusable =
        twostage::paste_defects_cpu<T>(images, description, opacity.data(), threads, instruction_set);
    return {c.in_place ? target : out, opacity, unusable};
}

double value_of(const unsigned char* at, PixelType type) {
    float single;
    double number;
    std::uint16_t half;
    std::memcpy(&single, at, type == PixelType::kFloat32 ? 4 : 1);
    std::memcpy(&number, at, type == PixelType::kFloat64 ? 8 : 1);
    std::memcpy(&half, at, bytes_of(type) == 2 ? 2 : 1);
    if (type == PixelType::kUint8) return *at / 255.0;
    if (type == PixelType::kFloat32) return static_cast<double>(single);
    if (type == PixelType::kFloat64) return number;
    // Neighbouring numbers of these types have neighbouring bits.
    return half / 256.0;
}

template <typename T>
bool agree(const Results<T>& a, const Results<T>& b, PixelType type) {
    for (std::size_t i = 0; i < a.opacity.size(); ++i) {
        const double one = static_cast<double>(a.opacity[i]), other = static_cast<double>(b.opacity[i]);
        if (!(std::fabs(one - other) <= 1e-5) || !(one >= 0 && one <= 1)) return false;
    }
    for (std::size_t i = 0; i < a.out.size(); i += static_cast<std::size_t>(bytes_of(type)))
        if (!(std::fabs(value_of(&a.out[i], type) - value_of(&b.out[i], type)) <= 5e-3)) return false;
    return true;
}

template <typename T>
bool check(const Case& c) {
    const Results<T> first = run<T>(c, 0, 1, false);
    bool good = first.unusable == 0;
    for (int set = 0; twostage::cpu_instruction_sets()[set] != nullptr; ++set)
        for (const int threads : {1, 3}) good = agree(run<T>(c, set, threads, false), first, c.type) && good;
    double sum = 0, opacity = 0;
    std::int64_t touched = 0;
    for (std::size_t i = 0; i < first.out.size(); i += static_cast<std::size_t>(bytes_of(c.type)))
        sum += value_of(&first.out[i], c.type);
    for (const T level : first.opacity) {
        opacity += static_cast<double>(level);
        touched += level > T(1e-4);
    }
    std::printf("%.9g %.9g %ld\n", sum, opacity, long(touched));
    Case spoilt = c;
    spoilt.slots = false;
    good = run<T>(spoilt, 0, 1, true).unusable >= 4 && good;
    if (!good)
        std::printf("wrong: %ldx%ldx%ldx%ld type %d from %d seed %ld\n", long(c.batch), long(c.channels),
                    long(c.height), long(c.width), static_cast<int>(c.type), static_cast<int>(c.source_type),
                    long(c.seed));
    return good;
}

}  // namespace

int main() {
    const std::int64_t shapes[][4] = {{1, 1, 1, 1},   {2, 1, 1, 40},  {1, 3, 33, 1},
                                      {3, 4, 17, 31}, {2, 2, 70, 65}, {1, 3, 90, 100}};
    const PixelType types[] = {PixelType::kUint8, PixelType::kFloat16, PixelType::kBfloat16, PixelType::kFloat32,
                               PixelType::kFloat64};
    bool good = true;
    std::uint64_t number = 0;
    for (const auto& shape : shapes)
        for (const PixelType type : types)
            for (int repeat = 0; repeat < 6; ++repeat) {
                const std::uint64_t n = number++;
                const Case c{shape[0],   shape[1],  shape[2],  shape[3],  type,       n % 3 ? type : PixelType::kUint8,
                             n % 2 == 0, n % 5 < 2, n % 7 < 3, n % 4 < 2, n % 3 == 1, n};
                good = (type == PixelType::kFloat64 ? check<double>(c) : check<float>(c)) && good;
            }
    return good ? 0 : 1;
}
