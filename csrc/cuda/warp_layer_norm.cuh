// LayerNorm of one row by one warp, in phases with a barrier of the warp after each. The row is in shared memory, in
// float32 and whole fours long. Lane l works on the fours at columns 4 l, 4 l + 128, ... only.
#pragma once

#include <cmath>

#include "core/math/moments.h"
#include "cuda/column_sums_kernel.cuh"
#include "cuda/vectorized_access.cuh"

namespace bertfast::cuda {

constexpr int WARP = 32;

// A warp's shared memory: two sums for each lane, and `rows` rows of float32.
BERTFAST_HD int64_t warp_floats(int64_t columns, int64_t rows) {
    return 2 * WARP + rows * 4 * fours(columns);
}

struct WarpRows {
    float* memory;  // at a multiple of 16 bytes
    int64_t columns;
    int lane;

    BERTFAST_HD_MEMBER float* lanes(int which) const { return memory + which * WARP; }
    BERTFAST_HD_MEMBER float* row(int64_t number) const { return memory + 2 * WARP + number * 4 * fours(columns); }
    BERTFAST_HD_MEMBER int64_t begin() const { return 4 * lane; }
    static constexpr int64_t STEP = 4 * WARP;
};

// The sum over all lanes, which every lane computes in the same order.
BERTFAST_HD float lanes_sum(const float* lanes) {
    float sum[4] = {};
    for (int lane = 0; lane < WARP; lane += 4) {
        float four[4];
        load_four(lanes + lane, 4, true, four);
        for (int i = 0; i < 4; ++i) sum[i] += four[i];
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// In two passes, since E[x^2] - E[x]^2 cancels. First: lanes(0) gets each lane's sum of row 0.
BERTFAST_HD void phase_sum(const WarpRows& warp) {
    float sum = 0.0f;
    for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
        float x[4];
        load_four(warp.row(0) + c, 4, true, x);
        sum += (x[0] + x[1]) + (x[2] + x[3]);  // 0 beyond the row's end
    }
    warp.lanes(0)[warp.lane] = sum;
}

// Then lanes(1) gets each lane's sum of squares.
BERTFAST_HD void phase_squares(const WarpRows& warp) {
    const float mean = lanes_sum(warp.lanes(0)) / static_cast<float>(warp.columns);
    float sum = 0.0f;
    for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
        float x[4];
        load_four(warp.row(0) + c, 4, true, x);
        for (int i = 0; i < 4; ++i) sum += c + i < warp.columns ? (x[i] - mean) * (x[i] - mean) : 0.0f;
    }
    warp.lanes(1)[warp.lane] = sum;
}

BERTFAST_HD Moments moments_of(const WarpRows& warp, float eps) {
    const float count = static_cast<float>(warp.columns);
    return {lanes_sum(warp.lanes(0)) / count, 1.0f / sqrtf(lanes_sum(warp.lanes(1)) / count + eps)};
}

// Four columns of the result at c.
template <typename Whole>
BERTFAST_HD void normalized_four(const WarpRows& warp, const Moments& moments, const float* weight, const float* bias,
                                 int64_t c, Whole whole, float (&x)[4]) {
    float factor[4], shift[4];
    load_four(warp.row(0) + c, 4, true, x);
    load_four(weight + c, warp.columns - c, whole, factor);
    load_four(bias + c, warp.columns - c, whole, shift);
    for (int i = 0; i < 4; ++i) x[i] = normalized(x[i], moments) * factor[i] + shift[i];
}

BERTFAST_HD void store_moments(const WarpRows& warp, const Moments& moments, float* to) {
    if (warp.lane > 0) return;
    to[0] = moments.mean;
    to[1] = moments.reciprocal_deviation;
}

constexpr int NORMALIZE_PHASES = 3;

// add_up() writes the lane's columns of row 0, and put(c, x) takes four columns of the result at c. After the last
// phase's barrier the warp may start another row.
template <typename Whole, typename AddUp, typename Put>
BERTFAST_HD void normalize_phase(int phase, const WarpRows& warp, const float* weight, const float* bias, float eps,
                                 Whole whole, float* to_moments, const AddUp& add_up, const Put& put) {
    if (phase == 0) {
        add_up();
        phase_sum(warp);
        return;
    }
    if (phase == 1) {
        phase_squares(warp);
        return;
    }
    const Moments moments = moments_of(warp, eps);
    for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
        float x[4];
        normalized_four(warp, moments, weight, bias, c, whole, x);
        put(c, x);
    }
    store_moments(warp, moments, to_moments);
}

// The gradient's first phase (core/math/moments.h): row 0 becomes n and row 1, which is grad, becomes g, with each
// lane's sums of g and g n in lanes(0) and lanes(1). Adds to weight's and bias's gradients in rows 2 and 3.
template <typename Whole>
BERTFAST_HD void phase_products(const WarpRows& warp, const Moments& moments, const float* weight, Whole whole) {
    float sum = 0.0f, products = 0.0f;
    for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
        float n[4], g[4], of[4], grad_weight[4], grad_bias[4];
        load_four(warp.row(0) + c, 4, true, n);
        load_four(warp.row(1) + c, 4, true, g);
        load_four(warp.row(2) + c, 4, true, grad_weight);
        load_four(warp.row(3) + c, 4, true, grad_bias);
        load_four(weight + c, warp.columns - c, whole, of);
        for (int i = 0; i < 4; ++i) {
            n[i] = normalized(n[i], moments);
            grad_weight[i] += g[i] * n[i];
            grad_bias[i] += g[i];
            g[i] *= of[i];
            sum += g[i];
            products += g[i] * n[i];
        }
        store_four(n, 4, true, warp.row(0) + c);
        store_four(g, 4, true, warp.row(1) + c);
        store_four(grad_weight, 4, true, warp.row(2) + c);
        store_four(grad_bias, 4, true, warp.row(3) + c);
    }
    warp.lanes(0)[warp.lane] = sum;
    warp.lanes(1)[warp.lane] = products;
}

// The gradient's second phase: the row's means, then the gradient of four columns at c.
BERTFAST_HD RowGradient row_gradient(const WarpRows& warp, const Moments& moments) {
    const float count = static_cast<float>(warp.columns);
    return {lanes_sum(warp.lanes(0)) / count, lanes_sum(warp.lanes(1)) / count, moments.reciprocal_deviation};
}

BERTFAST_HD void gradient_four(const RowGradient& row, const WarpRows& warp, int64_t c, float (&grad)[4]) {
    float n[4];
    load_four(warp.row(0) + c, 4, true, n);
    load_four(warp.row(1) + c, 4, true, grad);
    for (int i = 0; i < 4; ++i) grad[i] = gradient_at(row, grad[i], n[i]);
}

// --- A row, or a slice of rows, by all lanes of a warp ---
//
// `lanes(body)` calls body(warp) for each lane and waits for all of them: on a GPU they run side by side, on the host
// one after the other.

template <typename Lanes, typename Phase>
BERTFAST_HD void in_phases(int phases, const Lanes& lanes, const Phase& phase) {
    for (int number = 0; number < phases; ++number) lanes([&](const WarpRows& warp) { phase(number, warp); });
}

constexpr int NORMALIZE_BACKWARD_PHASES = 2;  // of a row: phase_products, then row_gradient

// A warp's sums are in rows 2, 3, ...: these two clear them, and store them in partial[number, column].
BERTFAST_HD void clear_sums(const WarpRows& warp, int64_t sums) {
    const float zeros[4] = {};
    for (int64_t number = 0; number < sums; ++number) {
        for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
            store_four(zeros, 4, true, warp.row(2 + number) + c);
        }
    }
}

template <typename Whole>
BERTFAST_HD void store_sums(const WarpRows& warp, int64_t sums, Whole whole, float* partial) {
    for (int64_t number = 0; number < sums; ++number) {
        for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
            float sum[4];
            load_four(warp.row(2 + number) + c, 4, true, sum);
            store_four(sum, warp.columns - c, whole, partial + number * warp.columns + c);
        }
    }
}

// Runs phase(number, row, warp) for each row of a slice, and stores the sums in partial[slice].
template <typename Whole, typename Lanes, typename Phase>
BERTFAST_HD void sum_slice(int64_t rows, int64_t slices, int64_t slice, int64_t sums, Whole whole, float* partial,
                           const Lanes& lanes, const Phase& phase) {
    lanes([&](const WarpRows& warp) { clear_sums(warp, sums); });
    const int64_t end = slice_row(rows, slices, slice + 1);
    for (int64_t row = slice_row(rows, slices, slice); row < end; ++row) {
        in_phases(NORMALIZE_BACKWARD_PHASES, lanes,
                  [&](int number, const WarpRows& warp) { phase(number, row, warp); });
    }
    lanes([&](const WarpRows& warp) { store_sums(warp, sums, whole, partial + slice * sums * warp.columns); });
}

}  // namespace bertfast::cuda
