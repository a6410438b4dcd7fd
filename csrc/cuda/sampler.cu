#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/launchers.h"
#include "cuda/sampler_kernel.cuh"

namespace bertfast::cuda {

namespace {

constexpr int PLAN_THREADS = 128;
constexpr int MAX_EXAMPLE_THREADS = 256;

// One thread per example. Stores each length and count where its prefix sum will be.
__global__ void __launch_bounds__(PLAN_THREADS)
    plan_kernel(const __grid_constant__ Corpus corpus, const __grid_constant__ SamplerOptions options,
                const int64_t* first, int64_t count, Example* examples, int32_t* cu_seqlens, int32_t* cu_masked) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * PLAN_THREADS + threadIdx.x;
    if (i >= count) return;
    const Example example = make_example(corpus, options, static_cast<uint64_t>(*first + i));
    const int64_t tokens = length(example);
    examples[i] = example;
    cu_seqlens[i + 1] = static_cast<int32_t>(tokens);
    cu_masked[i + 1] = static_cast<int32_t>(mask_count(options, tokens, num_candidates(example)));
}

__global__ void __launch_bounds__(SCAN_THREADS) scan_kernel(int32_t* cu_seqlens, int32_t* cu_masked, int64_t count) {
    __shared__ ScanShared shared;
    for (int phase = 0; phase < SCAN_PHASES; ++phase) {
        scan_phase(phase, shared, threadIdx.x, blockIdx.x == 0 ? cu_seqlens : cu_masked, count);
        __syncthreads();
    }
}

__device__ ExampleBlock choose(const Corpus& corpus, const SamplerOptions& options, const int64_t* first,
                               const Example* examples) {
    extern __shared__ int32_t memory[];
    const ExampleBlock block{corpus,
                             options,
                             static_cast<uint64_t>(*first + blockIdx.x),
                             examples[blockIdx.x],
                             mask_shared(memory, options),
                             static_cast<int>(threadIdx.x),
                             static_cast<int>(blockDim.x)};
    for (int phase = 0; phase < CHOOSE_PHASES; ++phase) {
        choose_phase(phase, block);
        __syncthreads();
    }
    return block;
}

// With words and spans, the number of predictions is known only once they are chosen.
__global__ void __launch_bounds__(MAX_EXAMPLE_THREADS)
    count_words_kernel(const __grid_constant__ Corpus corpus, const __grid_constant__ SamplerOptions options,
                       const int64_t* first, const Example* examples, int32_t* cu_masked) {
    const ExampleBlock block = choose(corpus, options, first, examples);
    if (threadIdx.x == 0) cu_masked[blockIdx.x + 1] = *block.shared.count;
}

__global__ void __launch_bounds__(MAX_EXAMPLE_THREADS)
    sample_kernel(const __grid_constant__ Corpus corpus, const __grid_constant__ SamplerOptions options,
                  const int64_t* first, const Example* examples, const __grid_constant__ Batch batch) {
    const ExampleBlock block = choose(corpus, options, first, examples);
    const Row row = row_of(batch, blockIdx.x);
    write_phase(0, block, batch, row, blockIdx.x);
    __syncthreads();
    write_phase(1, block, batch, row, blockIdx.x);
}

int example_threads(const SamplerOptions& options) {
    return std::min(MAX_EXAMPLE_THREADS, (options.max_len + 31) / 32 * 32);
}

std::string sizes(int64_t count, const SamplerOptions& options) {
    return " of " + std::to_string(count) + " examples of up to " + std::to_string(options.max_len) + " tokens";
}

template <typename Kernel>
int example_shared_bytes(Kernel* kernel, const SamplerOptions& options) {
    return shared_bytes(kernel, mask_shared_bytes(options), "sampler: max_len " + std::to_string(options.max_len));
}

}  // namespace

void plan(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count, Example* examples,
          int32_t* cu_seqlens, int32_t* cu_masked, void* stream) {
    const cudaStream_t in = static_cast<cudaStream_t>(stream);
    if (count > 0) {
        const unsigned blocks = static_cast<unsigned>((count + PLAN_THREADS - 1) / PLAN_THREADS);
        plan_kernel<<<blocks, PLAN_THREADS, 0, in>>>(corpus, options, first, count, examples, cu_seqlens, cu_masked);
        check_launch("sampler: plan" + sizes(count, options));
    }
    if (count > 0 && masks_words(options)) {
        count_words_kernel<<<static_cast<unsigned>(count), example_threads(options),
                             example_shared_bytes(count_words_kernel, options), in>>>(corpus, options, first, examples,
                                                                                      cu_masked);
        check_launch("sampler: words" + sizes(count, options));
    }
    scan_kernel<<<2, SCAN_THREADS, 0, in>>>(cu_seqlens, cu_masked, count);
    check_launch("sampler: sums" + sizes(count, options));
}

void sample(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count,
            const Example* examples, const Batch& batch, void* stream) {
    if (count == 0) return;
    sample_kernel<<<static_cast<unsigned>(count), example_threads(options),
                    example_shared_bytes(sample_kernel, options), static_cast<cudaStream_t>(stream)>>>(
        corpus, options, first, examples, batch);
    check_launch("sampler: batch" + sizes(count, options));
}

}  // namespace bertfast::cuda
