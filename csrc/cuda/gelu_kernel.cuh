// The threads of the GELU kernels. Forward, a thread takes four columns of a row; backward, four columns of a slice of
// the rows.
#pragma once

#include "core/gelu.h"
#include "core/math/log_sum_exp.h"
#include "core/math/normal.h"
#include "cuda/column_sums_kernel.cuh"
#include "cuda/vectorized_access.cuh"

namespace bertfast::cuda {

// 1 / x: on the device within 2 units in the last place, and 0 from 2^126 on.
BERTFAST_HD float fast_reciprocal(float x) {
#if defined(__CUDA_ARCH__)
    return __fdividef(1.0f, x);
#else
    return 1.0f / x;
#endif
}

BERTFAST_HD Normal<float> normal(float u) {
    return normal_from(u, fast_exponential(u * u * -0.5f), fast_reciprocal(1.0f + fabsf(u) * 0.25f));
}

// item in [0, rows * fours(columns)). `whole`: see in_fours.
template <typename T, typename Whole>
BERTFAST_HD void gelu_thread(const BiasGelu<T>& call, Whole whole, int64_t item) {
    const int64_t slots = fours(call.columns), column = item % slots * 4, left = call.columns - column;
    const int64_t first = item / slots * call.columns + column;
    float u[4], bias[4];
    load_four(call.x + first, left, whole, u);
    load_four(call.bias + column, left, whole, bias);
    for (int i = 0; i < 4; ++i) {
        u[i] += bias[i];
        u[i] *= normal(u[i]).below;
    }
    store_four(u, left, whole, call.out + first);
}

// item in [0, slices * fours(columns)). gelu'(u) = Phi(u) + u phi(u). The bias's gradient from the slice's rows goes to
// partial[slice, column].
template <typename T, typename Whole>
BERTFAST_HD void gelu_backward_thread(const BiasGeluBackward<T>& call, Whole whole, float* partial, int64_t slices,
                                      int64_t item) {
    const int64_t slots = fours(call.columns), slice = item / slots, column = item % slots * 4;
    const int64_t left = call.columns - column;
    float bias[4], sum[4] = {};
    load_four(call.bias + column, left, whole, bias);
    for (int64_t row = slice_row(call.rows, slices, slice); row < slice_row(call.rows, slices, slice + 1); ++row) {
        const int64_t first = row * call.columns + column;
        float u[4], grad[4];
        load_four(call.x + first, left, whole, u);
        load_four(call.grad + first, left, whole, grad);
        for (int i = 0; i < 4; ++i) {
            u[i] += bias[i];
            const Normal<float> at = normal(u[i]);
            grad[i] *= at.below + u[i] * at.density;
            sum[i] += grad[i];
        }
        store_four(grad, left, whole, call.grad_x + first);
    }
    store_four(sum, left, whole, partial + slice * call.columns + column);
}

}  // namespace bertfast::cuda
