#include "cuda/launchers.h"
#include "cuda/layer_norm_kernel.cuh"
#include "cuda/warp_per_item.cuh"

namespace bertfast::cuda {

namespace {

template <typename T, typename Whole>
__global__ void __launch_bounds__(MAX_WARPS* WARP) layer_norm_kernel(DropoutAddLayerNorm<T> call, Whole whole) {
    for_each_item(call.rows, call.columns, LAYER_NORM_ROWS,
                  [&](int64_t row, const WarpLanes& lanes) { layer_norm_row(call, whole, row, lanes); });
}

template <typename T, typename Whole>
__global__ void __launch_bounds__(MAX_WARPS* WARP, 4)
    layer_norm_backward_kernel(DropoutAddLayerNormBackward<T> call, Whole whole, float* partial, int64_t slices) {
    for_each_item(slices, call.columns, LAYER_NORM_BACKWARD_ROWS, [&](int64_t slice, const WarpLanes& lanes) {
        layer_norm_slice(call, whole, slice, slices, partial, lanes);
    });
}

template <typename T>
void forward(const DropoutAddLayerNorm<T>& call, void* stream) {
    if (call.rows == 0) return;
    const std::string what = "dropout_add_layer_norm" + of_size(call.rows, call.columns);
    const bool whole = in_fours(call.columns, call.x, call.residual, call.weight, call.bias, call.out);
    with_constant(whole, [&](auto constant) {
        const auto kernel = layer_norm_kernel<T, decltype(constant)>;
        const WarpsLaunch launch = warps_launch(kernel, call.rows, call.columns, LAYER_NORM_ROWS, what);
        kernel<<<launch.blocks, launch.threads, launch.bytes, static_cast<cudaStream_t>(stream)>>>(call, constant);
    });
    check_launch(what);
}

template <typename T>
void backward(const DropoutAddLayerNormBackward<T>& call, float* partial, int64_t slices, void* stream) {
    if (call.columns == 0) return;
    const std::string what = "dropout_add_layer_norm_backward" + of_size(call.rows, call.columns);
    const bool whole =
        in_fours(call.columns, call.grad, call.x, call.residual, call.weight, call.grad_x, call.grad_residual, partial);
    with_constant(whole, [&](auto constant) {
        const auto kernel = layer_norm_backward_kernel<T, decltype(constant)>;
        const WarpsLaunch launch = warps_launch(kernel, slices, call.columns, LAYER_NORM_BACKWARD_ROWS, what);
        kernel<<<launch.blocks, launch.threads, launch.bytes, static_cast<cudaStream_t>(stream)>>>(call, constant,
                                                                                                   partial, slices);
    });
    check_launch(what);
    const int64_t stride = LAYER_NORM_SUMS * call.columns;
    sum_slices(partial, slices, stride, call.columns, call.grad_weight, stream);
    sum_slices(partial + call.columns, slices, stride, call.columns, call.grad_bias, stream);
}

}  // namespace

void dropout_add_layer_norm(const DropoutAddLayerNorm<float>& call, void* stream) {
    forward(call, stream);
}

void dropout_add_layer_norm(const DropoutAddLayerNorm<bfloat16>& call, void* stream) {
    forward(call, stream);
}

void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<float>& call, float* partial, int64_t slices,
                                     void* stream) {
    backward(call, partial, slices, stream);
}

void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<bfloat16>& call, float* partial, int64_t slices,
                                     void* stream) {
    backward(call, partial, slices, stream);
}

}  // namespace bertfast::cuda
