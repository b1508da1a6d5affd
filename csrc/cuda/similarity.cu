// Chooses the kernel and the cut, launches it, and adds up what its blocks leave.
#include <limits>

#include "block_sums.cuh"
#include "plan.h"
#include "similarity.h"
#include "strips.h"

namespace twostage {

namespace {

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

Device device_of(int index) {
    constexpr int kDeclared = 5 * 1024;  // at most, of what a kernel has beside its dynamic shared memory
    return {attribute(cudaDevAttrMultiProcessorCount, index),
            attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index) - kDeclared,
            attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, index)};
}

int lead_of(const SimilarityParams& p) { return p.same_padding ? 0 : p.window_size / 2; }

template <typename T>
StripKind kind_of(const SimilarityParams& p, const SimilarityBuffers<T>& b) {
    return {p.form == Form::kAdditive, b.prediction_gradient != nullptr || b.target_gradient != nullptr,
            b.mask != nullptr};
}

dim3 checked_grid(std::int64_t blocks, int roles) {
    if (blocks > std::numeric_limits<int>::max())
        throw std::runtime_error("the CUDA kernels run at most 2^31 - 1 blocks in a call, not " +
                                 std::to_string(blocks));
    return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(roles));
}

template <typename T>
int roles_of(const SimilarityBuffers<T>& buffers) {
    return buffers.prediction_gradient != nullptr && buffers.target_gradient != nullptr ? 2 : 1;
}

// The latest choice is kept: most calls are like the one before.
StripPlan plan_for(const SimilarityParams& p, int roles, const StripShape& shape, int device) {
    struct Key {
        std::int64_t planes, height, width;
        int lead, roles, device;
        std::size_t (*bytes)(int);
        bool operator==(const Key& o) const {
            return planes == o.planes && height == o.height && width == o.width && lead == o.lead && roles == o.roles &&
                   device == o.device && bytes == o.bytes;
        }
    };
    static thread_local Key latest{};
    static thread_local StripPlan plan{};
    const Key key{p.batch * p.channels, p.height, p.width, lead_of(p), roles, device, shape.bytes};
    if (key == latest) return plan;
    plan = choose_plan(static_cast<int>(p.height), static_cast<int>(p.width), key.lead, key.planes * roles, shape,
                       device_of(device));
    latest = key;
    return plan;
}

void require_supported(const SimilarityParams& p) {
    constexpr std::int64_t kLongest = std::numeric_limits<int>::max() / 4;
    if (p.window_size < kSmallestCudaWindow || p.window_size > kLargestCudaWindow)
        throw std::runtime_error("the CUDA kernels have windows of 3 to 11 taps, not " + std::to_string(p.window_size));
    if (p.height > kLongest || p.width > kLongest)
        throw std::runtime_error("the CUDA kernels take images of at most " + std::to_string(kLongest) +
                                 " rows and columns");
}

template <typename T>
StripProblem<T> problem_of(const SimilarityParams& p, const SimilarityBuffers<T>& b, Reduction reduction,
                           const StripPlan& plan, BlockSums* sums, MaskScale<double> whole) {
    const bool loss = reduction == Reduction::kLoss, per_map = b.mask != nullptr || reduction == Reduction::kMap;
    const double window_factor = loss ? p.l1_weight - 1 : 1, pixel_factor = loss ? p.l1_weight / p.l1_unit : 0;
    // The first role's x is the prediction, unless the target's gradient alone is wanted.
    const bool swapped = b.prediction_gradient == nullptr && b.target_gradient != nullptr;
    StripProblem<T> problem{};
    problem.image[0] = swapped ? b.target : b.prediction;
    problem.image[1] = swapped ? b.prediction : b.target;
    problem.gradient[0] = swapped ? b.target_gradient : b.prediction_gradient;
    problem.gradient[1] = b.target_gradient;
    problem.type = b.type;
    problem.sigma = b.sigma;
    problem.mask = b.mask;
    problem.mask_scales = b.mask_scales;
    problem.upstream = b.upstream;
    problem.map = b.map;
    problem.sums = sums;
    problem.constants = {T(p.alpha), T(p.beta),   T(p.gamma), T(p.c1),
                         T(p.c2),    T(p.c2 / 2), T(p.noise), T(p.form == Form::kContrastStructure ? 0 : 1)};
    problem.highest = T(p.form == Form::kAdditive ? p.alpha + p.beta + p.gamma : 1.0);
    problem.window_factor = T(per_map ? window_factor : window_factor * whole.window);
    problem.pixel_factor = T(b.mask != nullptr ? pixel_factor : pixel_factor * whole.pixel);
    problem.has_difference = pixel_factor != 0 && sums != nullptr;
    // Upstream derivatives have any size: then the reference moves with every row.
    problem.steep = b.upstream != nullptr ? T(0) : T(16 / p.l1_unit);
    problem.channels = p.channels;
    problem.height = static_cast<int>(p.height);
    problem.width = static_cast<int>(p.width);
    problem.lead = lead_of(p);
    problem.strips = plan.strips;
    problem.segments = plan.segments;
    return problem;
}

constexpr int kReduceThreads = 256;

// What the sums of a block, or of a sample, are multiplied by.
template <typename T>
struct Reduce {
    const BlockSums* sums;  // of `blocks` blocks for each sample
    std::int64_t batch, blocks;
    const MaskScale<T>* mask_scales;  // or null: `whole`
    MaskScale<double> whole;
    bool per_sample, loss;
    double highest, l1_weight, l1_unit;
    T* value;
};

template <typename T>
__global__ void __launch_bounds__(kReduceThreads) reduce_blocks(const Reduce<T> r) {
    __shared__ BlockSums shared[kReduceThreads];
    const std::int64_t begin = r.per_sample ? blockIdx.x * r.blocks : 0;
    const std::int64_t end = r.per_sample ? begin + r.blocks : r.batch * r.blocks;
    BlockSums own{0, 0};
    for (std::int64_t block = begin + threadIdx.x; block < end; block += kReduceThreads) {
        MaskScale<double> scale = r.whole;
        if (r.mask_scales != nullptr) {
            const MaskScale<T> given = r.mask_scales[block / r.blocks];
            scale = {static_cast<double>(given.window), static_cast<double>(given.pixel)};
        }
        own.deficit += r.sums[block].deficit * scale.window;
        own.difference += r.sums[block].difference * scale.pixel;
    }
    const BlockSums all = sum_block(own, shared);
    if (threadIdx.x != 0) return;
    const double deficit = r.batch > 0 ? all.deficit : nan("");  // the mean of nothing, as torch has it
    const double score = r.highest - deficit;
    r.value[blockIdx.x] =
        static_cast<T>(r.loss ? (1 - r.l1_weight) * (1 - score) + r.l1_weight * all.difference / r.l1_unit : score);
}

}  // namespace

template <typename T>
std::int64_t similarity_cuda_workspace(const SimilarityParams& p, const SimilarityBuffers<T>& b, int device) {
    require_supported(p);
    if (b.value == nullptr || p.batch == 0) return 0;
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    const StripPlan plan = plan_for(p, roles_of(b), strip_shape<T>(kind_of(p, b)), device);
    return p.batch * p.channels * plan.strips * plan.segments * static_cast<std::int64_t>(sizeof(BlockSums));
}

template <typename T>
void similarity_cuda(const SimilarityParams& p, const SimilarityBuffers<T>& b, Reduction reduction, int device,
                     void* workspace, void* stream_address) {
    require_supported(p);
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    const auto stream = static_cast<cudaStream_t>(stream_address);
    const std::int64_t map_pixels = (p.height - 2 * lead_of(p)) * (p.width - 2 * lead_of(p));
    const double in_mean = reduction == Reduction::kSample ? 1 : static_cast<double>(p.batch);
    const double planes = in_mean * static_cast<double>(p.channels);
    const MaskScale<double> whole{1 / (planes * static_cast<double>(map_pixels)),
                                  1 / (planes * static_cast<double>(p.height * p.width))};
    auto* sums = b.value != nullptr ? static_cast<BlockSums*>(workspace) : nullptr;
    std::int64_t blocks = 0;  // of a sample
    if (p.batch > 0) {
        const StripKind kind = kind_of(p, b);
        const StripPlan plan = plan_for(p, roles_of(b), strip_shape<T>(kind), device);
        if (plan.threads == 0) throw std::runtime_error("the device has too little shared memory for the CUDA kernels");
        blocks = p.channels * plan.strips * plan.segments;
        const StripProblem<T> problem = problem_of(p, b, reduction, plan, sums, whole);
        launch_strips(kind, problem, checked_grid(p.batch * blocks, roles_of(b)), plan.threads, p.window_size / 2,
                      stream);
    }
    const bool per_sample = reduction == Reduction::kSample;
    if (sums == nullptr && (b.value == nullptr || p.batch > 0 || per_sample)) return;
    if (per_sample && p.batch == 0) return;
    const double highest = p.form == Form::kAdditive ? p.alpha + p.beta + p.gamma : 1.0;
    const Reduce<T> reduce{sums,
                           p.batch,
                           blocks,
                           b.mask != nullptr ? b.mask_scales : nullptr,
                           whole,
                           per_sample,
                           reduction == Reduction::kLoss,
                           highest,
                           p.l1_weight,
                           p.l1_unit,
                           b.value};
    launch("similarity, sum of blocks", reduce_blocks<T>, checked_grid(per_sample ? p.batch : 1, 1),
           dim3(kReduceThreads), 0, stream, reduce);
}

int cuda_devices() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();
    return 0;
}

template std::int64_t similarity_cuda_workspace<float>(const SimilarityParams&, const SimilarityBuffers<float>&, int);
template std::int64_t similarity_cuda_workspace<double>(const SimilarityParams&, const SimilarityBuffers<double>&, int);
template void similarity_cuda<float>(const SimilarityParams&, const SimilarityBuffers<float>&, Reduction, int, void*,
                                     void*);
template void similarity_cuda<double>(const SimilarityParams&, const SimilarityBuffers<double>&, Reduction, int, void*,
                                      void*);

}  // namespace twostage
