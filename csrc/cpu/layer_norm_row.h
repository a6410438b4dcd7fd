// LayerNorm of one row, held in the L1 cache in float32, whole vectors long.
#pragma once

#include "core/math/moments.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

// In two passes, since E[x^2] - E[x]^2 cancels. Sets the lanes beyond the row's end to the mean, which adds nothing.
static inline Moments moments(float* row, int64_t columns, float eps) {
    const float count = static_cast<float>(columns);
    Floats total = {};
    for (int64_t c = 0; c < columns; c += LANES) total += load_upto(row + c, columns - c);
    const float mean = sum(total) / count;
    for (int64_t c = columns; c % LANES != 0; ++c) row[c] = mean;
    Floats squares = {};
    for (int64_t c = 0; c < columns; c += LANES) {
        const Floats centred = load(row + c) - mean;
        squares += centred * centred;
    }
    return {mean, 1.0f / std::sqrt(sum(squares) / count + eps)};
}

// Replaces `grad`, which is 0 in the lanes beyond the row's end, with the row's gradient. Adds to the gradients of
// weight and bias.
static inline void normalize_backward(const float* row, const Moments& moments, const float* weight, int64_t columns,
                                      float* grad, float* grad_weight, float* grad_bias) {
    Floats total = {}, products = {};
    for (int64_t c = 0; c < columns; c += LANES) {
        const Floats n = normalized(load(row + c), moments), upstream = load(grad + c);
        const Floats g = upstream * load_upto(weight + c, columns - c);
        add_to(grad_weight + c, upstream * n);
        add_to(grad_bias + c, upstream);
        total += g;
        products += g * n;
        store(grad + c, g);
    }
    const float count = static_cast<float>(columns);
    const RowGradient gradient = {sum(total) / count, sum(products) / count, moments.reciprocal_deviation};
    for (int64_t c = 0; c < columns; c += LANES) {
        const Floats n = normalized(load(row + c), moments);
        store(grad + c, gradient_at(gradient, load(grad + c), n));
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA
