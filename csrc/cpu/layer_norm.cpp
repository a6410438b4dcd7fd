#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/layer_norm_row.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

// sum = dropout(x + x_bias) + residual, in float32.
template <typename T>
inline void drop_and_add(const T* x, const float* x_bias, const T* residual, const float* factors, int64_t columns,
                         float* sum) {
    for (int64_t c = 0; c < columns; c += LANES) {
        const int64_t left = columns - c;
        const Floats dropped = (load_upto(x + c, left) + load(x_bias + c)) * load(factors + c);
        store(sum + c, dropped + load_upto(residual + c, left));
    }
}

template <typename T>
void forward(const DropoutAddLayerNorm<T>& call) {
    const int64_t columns = call.columns, row_size = round_up(columns, LINE);
    parallel_for(call.rows, 1 + 8192 / (columns + 1), [&](int64_t begin, int64_t end) {
        Scratch scratch(2 * row_size + DropoutFactors::room_for(columns));
        float* const sum = scratch.take(row_size);
        const float* const x_bias = whole_row(call.x_bias, columns, scratch.take(row_size));
        DropoutFactors factors(call.dropout, columns, scratch);
        for (int64_t row = begin; row < end; ++row) {
            const int64_t first = row * columns;
            drop_and_add(call.x + first, x_bias, call.residual + first, factors.of(call.row_keys[row]), columns, sum);
            const Moments of_row = moments(sum, columns, call.eps);
            memcpy(call.moments + 2 * row, &of_row, sizeof of_row);
            for (int64_t c = 0; c < columns; c += LANES) {
                const int64_t left = columns - c;
                const Floats weight = load_upto(call.weight + c, left), bias = load_upto(call.bias + c, left);
                store_upto(call.out + first + c, normalized(load(sum + c), of_row) * weight + bias, left);
            }
        }
    });
}

template <typename T>
void backward(const DropoutAddLayerNormBackward<T>& call) {
    const int64_t columns = call.columns, row_size = round_up(columns, LINE);
    ColumnSums sums(call.rows, 2 * row_size);
    sums.over_chunks([&](int64_t begin, int64_t end, float* partial) {
        Scratch scratch(3 * row_size + DropoutFactors::room_for(columns));
        float* const sum = scratch.take(row_size);
        float* const grad = scratch.take(row_size);
        const float* const x_bias = whole_row(call.x_bias, columns, scratch.take(row_size));
        DropoutFactors factors(call.dropout, columns, scratch);
        for (int64_t row = begin; row < end; ++row) {
            const int64_t first = row * columns;
            const float* const factor = factors.of(call.row_keys[row]);
            drop_and_add(call.x + first, x_bias, call.residual + first, factor, columns, sum);
            for (int64_t c = 0; c < columns; c += LANES) {
                store(grad + c, load_upto(call.grad + first + c, columns - c));
            }
            Moments of_row;
            memcpy(&of_row, call.moments + 2 * row, sizeof of_row);
            normalize_backward(sum, of_row, call.weight, columns, grad, partial, partial + row_size);
            for (int64_t c = 0; c < columns; c += LANES) {
                const int64_t left = columns - c;
                store_upto(call.grad_residual + first + c, load(grad + c), left);
                store_upto(call.grad_x + first + c, load(grad + c) * load(factor + c), left);
            }
        }
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
