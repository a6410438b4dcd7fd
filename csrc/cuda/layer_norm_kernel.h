// The lanes of the kernels of LayerNorm(dropout(x) + residual): a warp for a row, backward for a slice of the rows, one
// after the other.
#pragma once

#include "core/layer_norm.h"
#include "cuda/column_sums_kernel.h"
#include "cuda/dropout_kernel.h"
#include "cuda/normalize_kernel.h"

namespace bertfast::cuda {

constexpr int64_t LAYER_NORM_ROWS = 1, LAYER_NORM_BACKWARD_ROWS = 4;  // in a warp's shared memory

// Row 0 = dropout(x) + residual.
template <typename Call>
BERTFAST_HD void add_up(const Call& call, bool whole, int64_t row, const WarpRows& warp) {
    for (int64_t c = warp.begin(); c < call.columns; c += WarpRows::STEP) {
        const int64_t first = row * call.columns + c, left = call.columns - c;
        float x[4], residual[4];
        load_four(call.x + first, left, whole, x);
        load_four(call.residual + first, left, whole, residual);
        if (call.drops) drop_four(call.rule, call.row_keys[row], c / 4, x);
        for (int i = 0; i < 4; ++i) x[i] += residual[i];
        store_four(x, 4, true, warp.row(0) + c);
    }
}

constexpr int LAYER_NORM_PHASES = 3;

// A warp may go on to another row after the last phase's barrier.
template <typename T>
BERTFAST_HD void layer_norm_phase(int phase, const DropoutAddLayerNorm<T>& call, bool whole, int64_t row,
                                  const WarpRows& warp) {
    if (phase == 0) {
        add_up(call, whole, row, warp);
        phase_sum(warp);
        return;
    }
    if (phase == 1) {
        phase_squares(warp);
        return;
    }
    const Moments moments = moments_of(warp, call.eps);
    for (int64_t c = warp.begin(); c < call.columns; c += WarpRows::STEP) {
        float x[4];
        normalized_four(warp, moments, call.weight, call.bias, c, whole, x);
        store_four(x, call.columns - c, whole, call.out + row * call.columns + c);
    }
    store_moments(warp, moments, call.moments + 2 * row);
}

constexpr int LAYER_NORM_BACKWARD_PHASES = 2;

// Between clear_sums(warp, 2, 2) and store_sums(warp, 2, 2, ...), for each row of the slice.
template <typename T>
BERTFAST_HD void layer_norm_backward_phase(int phase, const DropoutAddLayerNormBackward<T>& call, bool whole,
                                           int64_t row, const WarpRows& warp) {
    const Moments moments{call.moments[2 * row], call.moments[2 * row + 1]};
    if (phase == 0) {
        add_up(call, whole, row, warp);
        for (int64_t c = warp.begin(); c < call.columns; c += WarpRows::STEP) {
            float grad[4];
            load_four(call.grad + row * call.columns + c, call.columns - c, whole, grad);
            store_four(grad, 4, true, warp.row(1) + c);
        }
        phase_products(warp, moments, call.weight, whole);
        return;
    }
    const RowGradient gradient = row_gradient(warp, moments);
    for (int64_t c = warp.begin(); c < call.columns; c += WarpRows::STEP) {
        const int64_t first = row * call.columns + c, left = call.columns - c;
        float grad[4];
        gradient.at(warp, c, grad);
        store_four(grad, left, whole, call.grad_residual + first);
        if (call.drops) drop_four(call.rule, call.row_keys[row], c / 4, grad);
        store_four(grad, left, whole, call.grad_x + first);
    }
}

}  // namespace bertfast::cuda
