#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/layer_norm_rows.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

// The vectors of dropout(x + x_bias) + residual in the rows from `first` on.
template <typename Call>
auto dropped_and_added(const Call& call, int64_t first, const float* x_bias, const float* factor, int64_t stride) {
    return [=, &call](int64_t r, int64_t c, int64_t left) {
        const int64_t at = (first + r) * call.columns + c;
        return (load_upto(call.x + at, left) + load(x_bias + c)) * load(factor + r * stride + c) +
               load_upto(call.residual + at, left);
    };
}

template <typename T>
void forward(const DropoutAddLayerNorm<T>& call) {
    const int64_t columns = call.columns, row_size = round_up(columns, LINE);
    parallel_for(call.rows, 1 + 8192 / (columns + 1), [&](int64_t begin, int64_t end) {
        Scratch scratch((ROWS + 1) * row_size + ROWS * DropoutFactors::room_for(columns));
        float* const working = scratch.take(ROWS * row_size);
        const float* const x_bias = whole_row(call.x_bias, columns, scratch.take(row_size));
        DropoutFactors factors(call.dropout, columns, scratch, ROWS);
        few_at_a_time(begin, end, [&](int64_t row, int64_t rows) {
            const float* const factor = factors.of(call.row_keys + row, rows);
            const auto put = [&](int64_t r, int64_t c, int64_t left, Floats normal) {
                store_upto(call.out + (row + r) * columns + c, normal, left);
            };
            normalize(rows, columns, call.weight, call.bias, call.eps,
                      dropped_and_added(call, row, x_bias, factor, factors.stride()), put, call.moments + 2 * row,
                      working, row_size);
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
            const auto grad_at = [&](int64_t r, int64_t c, int64_t left) {
                return load_upto(call.grad + (row + r) * columns + c, left);
            };
            const auto put = [&](int64_t r, int64_t c, int64_t left, Floats grad) {
                const int64_t at = (row + r) * columns + c;
                store_upto(call.grad_residual + at, grad, left);
                store_upto(call.grad_x + at, grad * load(factor + r * factors.stride() + c), left);
            };
            normalize_backward(rows, columns, call.moments + 2 * row, call.weight,
                               dropped_and_added(call, row, x_bias, factor, factors.stride()), grad_at, put, partial,
                               partial + row_size, working, row_size);
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
