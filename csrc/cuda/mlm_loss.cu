#include "cuda/launch.cuh"
#include "cuda/launchers.h"
#include "cuda/mlm_loss_kernel.cuh"

namespace bertfast::cuda {

namespace {

template <typename T>
__global__ void __launch_bounds__(MLM_LOSS_THREADS) mlm_loss_kernel(MlmLossChunk<T> chunk) {
    __shared__ MlmLossShared shared;
    const int64_t row = blockIdx.x;
    const int thread = static_cast<int>(threadIdx.x);
    phase_sum(chunk, row, thread, shared);
    __syncthreads();
    for (int half = MLM_LOSS_THREADS / 2; half > 0; half /= 2) {
        phase_merge(half, thread, shared);
        __syncthreads();
    }
    phase_gradient(chunk, row, thread, shared);
}

template <typename T>
__global__ void __launch_bounds__(MLM_LOSS_THREADS) bias_gradient_kernel(MlmLossChunk<T> chunk) {
    const int64_t item = static_cast<int64_t>(blockIdx.x) * MLM_LOSS_THREADS + threadIdx.x;
    if (item < chunk.slices * (chunk.columns / Pack<T>::SIZE)) bias_gradient_thread(chunk, item);
}

template <typename T>
void launch(const MlmLossChunk<T>& chunk, void* stream_) {
    if (chunk.rows == 0) return;
    const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
    const std::string sizes = of_size(chunk.rows, chunk.columns) + " logits";
    mlm_loss_kernel<<<static_cast<unsigned>(chunk.rows), MLM_LOSS_THREADS, 0, stream>>>(chunk);
    check_launch("mlm_loss" + sizes);
    if (!chunk.bias_gradient) return;
    const int64_t items = chunk.slices * (chunk.columns / Pack<T>::SIZE);
    const int64_t blocks = (items + MLM_LOSS_THREADS - 1) / MLM_LOSS_THREADS;
    bias_gradient_kernel<<<static_cast<unsigned>(blocks), MLM_LOSS_THREADS, 0, stream>>>(chunk);
    check_launch("mlm_loss's bias gradient" + sizes);
}

}  // namespace

void mlm_loss(const MlmLossChunk<float>& chunk, void* stream) {
    launch(chunk, stream);
}

void mlm_loss(const MlmLossChunk<bfloat16>& chunk, void* stream) {
    launch(chunk, stream);
}

}  // namespace bertfast::cuda
