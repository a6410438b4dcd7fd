#include "cuda/column_sums.h"
#include "cuda/gelu.h"
#include "cuda/gelu_kernel.h"
#include "cuda/launch.h"

namespace bertfast::cuda {

namespace {

constexpr int THREADS = 256;

template <typename T>
__global__ void __launch_bounds__(THREADS) gelu_kernel(BiasGelu<T> call, bool whole) {
    const int64_t items = call.rows * fours(call.columns), stride = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t item = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; item < items; item += stride) {
        gelu_thread(call, whole, item);
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    gelu_backward_kernel(BiasGeluBackward<T> call, bool whole, float* partial, int64_t slices) {
    const int64_t items = slices * fours(call.columns), stride = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t item = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; item < items; item += stride) {
        gelu_backward_thread(call, whole, partial, slices, item);
    }
}

std::string sizes(int64_t rows, int64_t columns) {
    return " of " + std::to_string(rows) + " x " + std::to_string(columns);
}

template <typename T>
void forward(const BiasGelu<T>& call, void* stream) {
    const unsigned blocks = grid(call.rows * fours(call.columns), THREADS);
    if (blocks == 0) return;
    gelu_kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        call, in_fours(call.columns, call.x, call.bias, call.out));
    check_launch("bias_gelu" + sizes(call.rows, call.columns));
}

template <typename T>
void backward(const BiasGeluBackward<T>& call, float* partial, int64_t slices, void* stream) {
    const unsigned blocks = grid(slices * fours(call.columns), THREADS);
    if (blocks == 0) return;
    const bool whole = in_fours(call.columns, call.grad, call.x, call.bias, call.grad_x, partial);
    gelu_backward_kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(call, whole, partial, slices);
    check_launch("bias_gelu_backward" + sizes(call.rows, call.columns));
    column_sums(partial, slices, call.columns, call.columns, call.grad_bias, stream);
}

}  // namespace

void bias_gelu(const BiasGelu<float>& call, void* stream) {
    forward(call, stream);
}

void bias_gelu(const BiasGelu<bfloat16>& call, void* stream) {
    forward(call, stream);
}

void bias_gelu_backward(const BiasGeluBackward<float>& call, float* partial, int64_t slices, void* stream) {
    backward(call, partial, slices, stream);
}

void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call, float* partial, int64_t slices, void* stream) {
    backward(call, partial, slices, stream);
}

}  // namespace bertfast::cuda
