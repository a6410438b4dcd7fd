#include "cuda/column_sums_kernel.cuh"
#include "cuda/launch.cuh"
#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

__global__ void __launch_bounds__(SUM_THREADS) column_sums_kernel(ColumnSums sums) {
    __shared__ ColumnSumsShared shared;
    for (int phase = 0; phase < SUM_PHASES; ++phase) {
        column_sums_phase(phase, sums, blockIdx.x, static_cast<int>(threadIdx.x), shared);
        __syncthreads();
    }
}

}  // namespace

void sum_slices(const float* partial, int64_t slices, int64_t stride, int64_t columns, float* out, void* stream) {
    if (columns == 0) return;
    const unsigned blocks = static_cast<unsigned>((columns + SUM_COLUMNS - 1) / SUM_COLUMNS);
    column_sums_kernel<<<blocks, SUM_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        {partial, slices, stride, columns, out});
    check_launch("sums over " + std::to_string(slices) + " slices of " + std::to_string(columns) + " columns");
}

}  // namespace bertfast::cuda
