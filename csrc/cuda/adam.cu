#include "cuda/adam_kernel.cuh"
#include "cuda/launch.cuh"
#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

__global__ void __launch_bounds__(ADAM_THREADS)
    adam_kernel(const __grid_constant__ AdamTable table, int64_t chunks, AdamRule rule) {
    if (*rule.refused != 0) return;
    __shared__ AdamFactors factors;
    if (threadIdx.x == 0) factors = adam_factors(rule);
    __syncthreads();
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        adam_thread(factors, table, chunk, threadIdx.x);
    }
}

}  // namespace

void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule, void* stream) {
    static_assert(sizeof(AdamTable) + sizeof(int64_t) + sizeof(AdamRule) <= 4096);
    in_tables(tensors, count, [&](const AdamTable& table, int64_t chunks) {
        adam_kernel<<<grid(chunks, 1), ADAM_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(table, chunks, rule);
        check_launch("adam of " + std::to_string(count) + " tensors");
    });
}

}  // namespace bertfast::cuda
