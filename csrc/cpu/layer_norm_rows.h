// LayerNorm of a few rows, held in the L1 cache in float32, whole vectors long.
#pragma once

#include "core/math/moments.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

// Rows at a time. A row's sum must cross the lanes and a division before the row goes on; so long, others do.
constexpr int64_t ROWS = 4;

// Calls body(first, rows) for the rows from `begin` to `end`, at most ROWS at a time.
template <typename Body>
static inline void few_at_a_time(int64_t begin, int64_t end, const Body& body) {
    for (int64_t first = begin; first < end; first += ROWS) body(first, end - first < ROWS ? end - first : ROWS);
}

// The moments of at most ROWS rows, whose vectors row_at(r, c, left) computes; they are stored at `to`, a row each
// `stride` elements. In two passes, since E[x^2] - E[x]^2 cancels. Sets the lanes beyond a row's end to its mean, which
// adds nothing.
template <typename Row>
static inline void moments(int64_t rows, int64_t columns, float eps, const Row& row_at, float* to, int64_t stride,
                           Moments* of_rows) {
    const float count = static_cast<float>(columns);
    Floats totals[ROWS];
    for (int64_t r = 0; r < rows; ++r) {
        Floats total = {};
        over_vectors(columns, [&](int64_t c, int64_t left) {
            const Floats x = row_at(r, c, left);
            store(to + r * stride + c, x);
            total += x;
        });
        totals[r] = total;
    }
    for (int64_t r = 0; r < rows; ++r) of_rows[r].mean = sum(totals[r]) / count;
    for (int64_t r = 0; r < rows; ++r) {
        float* const row = to + r * stride;
        for (int64_t c = columns; c % LANES != 0; ++c) row[c] = of_rows[r].mean;
        Floats squares = {};
        for (int64_t c = 0; c < columns; c += LANES) {
            const Floats centred = load(row + c) - of_rows[r].mean;
            squares += centred * centred;
        }
        totals[r] = squares;
    }
    for (int64_t r = 0; r < rows; ++r) of_rows[r].reciprocal_deviation = 1.0f / std::sqrt(sum(totals[r]) / count + eps);
}

// LayerNorm of at most ROWS rows: put(r, c, left, vector) takes the result's vectors, `of_rows` the rows' moments.
// row_at as above. `working` is ROWS `stride` elements of working memory.
template <typename Row, typename Put>
static inline void normalize(int64_t rows, int64_t columns, const float* weight, const float* bias, float eps,
                             const Row& row_at, const Put& put, float* of_rows, float* working, int64_t stride) {
    Moments of_row[ROWS];
    moments(rows, columns, eps, row_at, working, stride, of_row);
    memcpy(of_rows, of_row, rows * sizeof *of_row);
    for (int64_t r = 0; r < rows; ++r) {
        over_vectors(columns, [&](int64_t c, int64_t left) {
            const Floats normal = normalized(load(working + r * stride + c), of_row[r]);
            put(r, c, left, normal * load_upto(weight + c, left) + load_upto(bias + c, left));
        });
    }
}

// The gradients of at most ROWS rows. row_at(r, c, left) and grad_at(r, c, left) compute the vectors of the rows and of
// the upstream gradient, which is 0 in the lanes beyond a row's end; put(r, c, left, grad) takes those of the result.
// Adds to the gradients of weight and bias. `of_rows` are the rows' moments from the forward pass; `working` is 2 ROWS
// `stride` elements of working memory.
template <typename Row, typename Grad, typename Put>
static inline void normalize_backward(int64_t rows, int64_t columns, const float* of_rows, const float* weight,
                                      const Row& row_at, const Grad& grad_at, const Put& put, float* grad_weight,
                                      float* grad_bias, float* working, int64_t stride) {
    Moments moments[ROWS];
    memcpy(moments, of_rows, rows * sizeof *moments);
    float *const normals = working, *const grads = working + ROWS * stride;
    Floats totals[ROWS], products[ROWS];
    for (int64_t r = 0; r < rows; ++r) {
        Floats total = {}, product = {};
        over_vectors(columns, [&](int64_t c, int64_t left) {
            const Floats n = normalized(row_at(r, c, left), moments[r]), upstream = grad_at(r, c, left);
            const Floats g = upstream * load_upto(weight + c, left);
            add_to(grad_weight + c, upstream * n);
            add_to(grad_bias + c, upstream);
            total += g;
            product += g * n;
            store(normals + r * stride + c, n);
            store(grads + r * stride + c, g);
        });
        totals[r] = total, products[r] = product;
    }
    const float count = static_cast<float>(columns);
    RowGradient gradients[ROWS];
    for (int64_t r = 0; r < rows; ++r) {
        gradients[r] = {sum(totals[r]) / count, sum(products[r]) / count, moments[r].reciprocal_deviation};
    }
    for (int64_t r = 0; r < rows; ++r) {
        over_vectors(columns, [&](int64_t c, int64_t left) {
            const int64_t at = r * stride + c;
            put(r, c, left, gradient_at(gradients[r], load(grads + at), load(normals + at)));
        });
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA
