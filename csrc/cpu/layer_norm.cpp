#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/layer_norm_rows.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

// dropout(x + x_bias) + residual: one vector of a row.
template <typename T>
inline Floats dropped_and_added(const T* x, const float* x_bias, const T* residual, const float* factor, int64_t left) {
    return (load_upto(x, left) + load(x_bias)) * load(factor) + load_upto(residual, left);
}

template <typename T>
void forward(const DropoutAddLayerNorm<T>& call) {
    const int64_t columns = call.columns, row_size = round_up(columns, LINE);
    parallel_for(call.rows, 1 + 8192 / (columns + 1), [&](int64_t begin, int64_t end) {
        Scratch scratch((ROWS + 1) * row_size + ROWS * DropoutFactors::room_for(columns));
        float* const sums = scratch.take(ROWS * row_size);
        const float* const x_bias = whole_row(call.x_bias, columns, scratch.take(row_size));
        DropoutFactors factors(call.dropout, columns, scratch, ROWS);
        few_at_a_time(begin, end, [&](int64_t row, int64_t rows) {
            const float* const factor = factors.of(call.row_keys + row, rows);
            const auto sum_at = [&](int64_t r, int64_t c, int64_t left) {
                const int64_t at = (row + r) * columns + c;
                return dropped_and_added(call.x + at, x_bias + c, call.residual + at, factor + r * factors.stride() + c,
                                         left);
            };
            Moments of_rows[ROWS];
            moments(rows, columns, call.eps, sum_at, sums, row_size, of_rows);
            memcpy(call.moments + 2 * row, of_rows, rows * sizeof *of_rows);
            for (int64_t r = 0; r < rows; ++r) {
                over_vectors(columns, [&](int64_t c, int64_t left) {
                    const Floats weight = load_upto(call.weight + c, left), bias = load_upto(call.bias + c, left);
                    const Floats normal = normalized(load(sums + r * row_size + c), of_rows[r]);
                    store_upto(call.out + (row + r) * columns + c, normal * weight + bias, left);
                });
            }
        });
    });
}

template <typename T>
void backward(const DropoutAddLayerNormBackward<T>& call) {
    const int64_t columns = call.columns, row_size = round_up(columns, LINE);
    ColumnSums sums(call.rows, 2 * row_size);
    sums.over_chunks([&](int64_t begin, int64_t end, float* partial) {
        Scratch scratch((2 * ROWS + 1) * row_size + ROWS * DropoutFactors::room_for(columns));
        float* const working = scratch.take(2 * ROWS * row_size);
        const float* const x_bias = whole_row(call.x_bias, columns, scratch.take(row_size));
        DropoutFactors factors(call.dropout, columns, scratch, ROWS);
        few_at_a_time(begin, end, [&](int64_t row, int64_t rows) {
            const float* const factor = factors.of(call.row_keys + row, rows);
            const auto sum_at = [&](int64_t r, int64_t c, int64_t left) {
                const int64_t at = (row + r) * columns + c;
                return dropped_and_added(call.x + at, x_bias + c, call.residual + at, factor + r * factors.stride() + c,
                                         left);
            };
            const auto grad_at = [&](int64_t r, int64_t c, int64_t left) {
                return load_upto(call.grad + (row + r) * columns + c, left);
            };
            const auto put = [&](int64_t r, int64_t c, int64_t left, Floats grad) {
                const int64_t at = (row + r) * columns + c;
                store_upto(call.grad_residual + at, grad, left);
                store_upto(call.grad_x + at, grad * load(factor + r * factors.stride() + c), left);
            };
            Moments of_rows[ROWS];
            memcpy(of_rows, call.moments + 2 * row, rows * sizeof *of_rows);
            normalize_backward(rows, columns, of_rows, call.weight, sum_at, grad_at, put, partial, partial + row_size,
                               working, row_size);
        });
    });
    sums.total(0, columns, call.grad_weight);
    sums.total(row_size, columns, call.grad_bias);
}

}  // namespace

void dropout_add_layer_norm(const DropoutAddLayerNorm<float>& call) {
    forward(call);
}
void dropout_add_layer_norm(const DropoutAddLayerNorm<bfloat16>& call) {
    forward(call);
}
void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<float>& call) {
    backward(call);
}
void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<bfloat16>& call) {
    backward(call);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
