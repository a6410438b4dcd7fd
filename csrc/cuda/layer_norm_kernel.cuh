// The lanes of the kernels of LayerNorm(dropout(x) + residual). Forward, a warp takes a row; backward, a slice of the
// rows, one after the other.
#pragma once

#include "core/layer_norm.h"
#include "cuda/drop_four.cuh"
#include "cuda/warp_layer_norm.cuh"

namespace bertfast::cuda {

constexpr int64_t LAYER_NORM_ROWS = 1, LAYER_NORM_BACKWARD_ROWS = 4;  // in a warp's shared memory

// Row 0 = dropout(x) + residual.
template <typename Call, typename Whole>
BERTFAST_HD void add_up(const Call& call, Whole whole, int64_t row, const WarpRows& warp) {
    for (int64_t c = warp.begin(); c < call.columns; c += WarpRows::STEP) {
        const int64_t first = row * call.columns + c, left = call.columns - c;
        float x[4], residual[4];
        load_four(call.x + first, left, whole, x);
        load_four(call.residual + first, left, whole, residual);
        if (call.dropout.enabled) drop_four(call.dropout, call.row_keys[row], c, x);
        for (int i = 0; i < 4; ++i) x[i] += residual[i];
        store_four(x, 4, true, warp.row(0) + c);
    }
}

// One of NORMALIZE_PHASES phases.
template <typename T, typename Whole>
BERTFAST_HD void layer_norm_phase(int phase, const DropoutAddLayerNorm<T>& call, Whole whole, int64_t row,
                                  const WarpRows& warp) {
    const auto put = [&](int64_t c, const float (&x)[4]) {
        store_four(x, call.columns - c, whole, call.out + row * call.columns + c);
    };
    normalize_phase(
        phase, warp, call.weight, call.bias, call.eps, whole, call.moments + 2 * row,
        [&] { add_up(call, whole, row, warp); }, put);
}

template <typename T, typename Whole, typename Lanes>
BERTFAST_HD void layer_norm_row(const DropoutAddLayerNorm<T>& call, Whole whole, int64_t row, const Lanes& lanes) {
    in_phases(NORMALIZE_PHASES, lanes,
              [&](int phase, const WarpRows& warp) { layer_norm_phase(phase, call, whole, row, warp); });
}

template <typename T, typename Whole>
BERTFAST_HD void layer_norm_backward_phase(int phase, const DropoutAddLayerNormBackward<T>& call, Whole whole,
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
        gradient_four(gradient, warp, c, grad);
        store_four(grad, left, whole, call.grad_residual + first);
        if (call.dropout.enabled) drop_four(call.dropout, call.row_keys[row], c, grad);
        store_four(grad, left, whole, call.grad_x + first);
    }
}

constexpr int64_t LAYER_NORM_SUMS = 2;  // weight's and bias's gradients

template <typename T, typename Whole, typename Lanes>
BERTFAST_HD void layer_norm_slice(const DropoutAddLayerNormBackward<T>& call, Whole whole, int64_t slice,
                                  int64_t slices, float* partial, const Lanes& lanes) {
    sum_slice(call.rows, slices, slice, LAYER_NORM_SUMS, whole, partial, lanes,
              [&](int phase, int64_t row, const WarpRows& warp) {
                  layer_norm_backward_phase(phase, call, whole, row, warp);
              });
}

}  // namespace bertfast::cuda
