#include "cuda/gelu_kernel.cuh"
#include "cuda/launch.cuh"
#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

constexpr int THREADS = 256;

template <typename T, typename Whole>
__global__ void __launch_bounds__(THREADS) gelu_kernel(BiasGelu<T> call, Whole whole) {
    for_each_of_thread(call.rows * fours(call.columns), [&](int64_t item) { gelu_thread(call, whole, item); });
}

template <typename T, typename Whole>
__global__ void __launch_bounds__(THREADS)
    gelu_backward_kernel(BiasGeluBackward<T> call, Whole whole, float* partial, int64_t slices) {
    for_each_of_thread(slices * fours(call.columns),
                       [&](int64_t item) { gelu_backward_thread(call, whole, partial, slices, item); });
}

template <typename T>
void forward(const BiasGelu<T>& call, void* stream) {
    const unsigned blocks = grid(call.rows * fours(call.columns), THREADS);
    if (blocks == 0) return;
    with_constant(in_fours(call.columns, call.x, call.bias, call.out), [&](auto whole) {
        gelu_kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(call, whole);
    });
    check_launch("bias_gelu" + of_size(call.rows, call.columns));
}

template <typename T>
void backward(const BiasGeluBackward<T>& call, float* partial, int64_t slices, void* stream) {
    const unsigned blocks = grid(slices * fours(call.columns), THREADS);
    if (blocks == 0) return;
    const bool whole = in_fours(call.columns, call.grad, call.x, call.bias, call.grad_x, partial);
    with_constant(whole, [&](auto constant) {
        gelu_backward_kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(call, constant, partial,
                                                                                        slices);
    });
    check_launch("bias_gelu_backward" + of_size(call.rows, call.columns));
    sum_slices(partial, slices, call.columns, call.columns, call.grad_bias, stream);
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
