// Calls each CPU kernel on random tensors of given sizes. `check(call)` receives each call, which runs the kernel and
// returns everything that the kernel wrote.
#pragma once

#include <vector>

#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "kernel_inputs.h"

namespace bertfast {

// The bytes of what a call wrote.
struct Written {
    std::vector<char> bytes;

    template <typename T>
    Written& operator<<(const std::vector<T>& values) {
        const char* const begin = reinterpret_cast<const char*>(values.data());
        bytes.insert(bytes.end(), begin, begin + values.size() * sizeof(T));
        return *this;
    }
};

template <typename Check>
class KernelCalls {
  public:
    KernelCalls(uint32_t seed, const Check& check) : random_(seed), check_(check) {}

    // The kernels that work row by row: GELU, sums of columns and products over rows, LayerNorm.
    template <typename T>
    void rows(int64_t rows, int64_t columns) {
        const auto x = floats<T>(rows * columns), residual = floats<T>(rows * columns);
        const auto grad = floats<T>(rows * columns);
        const auto weight = floats<float>(columns), bias = floats<float>(columns);
        const auto row_keys = ints(rows, 1 << 30);
        const Dropout rule = make_dropout(0.3, 11, 256 * 5);
        check_([&] {
            std::vector<T> out(x.size());
            BERTFAST_DISPATCH(bias_gelu(BiasGelu<T>{x.data(), bias.data(), rows, columns, out.data()}));
            return Written() << out;
        });
        check_([&] {
            std::vector<float> sums(columns);
            BERTFAST_DISPATCH(column_sums(x.data(), rows, columns, sums.data()));
            return Written() << sums;
        });
        for (const bool add : {false, true}) {
            check_([&] {
                std::vector<float> to(columns * columns, 1.0f);
                const MatrixProduct<T, float> call{
                    {x.data(), true}, {grad.data(), false}, columns, rows, columns, to.data(), add};
                BERTFAST_DISPATCH(matrix_product(call));
                return Written() << to;
            });
            check_([&] {
                std::vector<T> to(rows * rows, T{});
                const MatrixProduct<T, T> call{
                    {x.data(), false}, {grad.data(), true}, rows, columns, rows, to.data(), add};
                BERTFAST_DISPATCH(matrix_product(call));
                return Written() << to;
            });
        }
        check_([&] {
            std::vector<T> grad_x(x.size());
            std::vector<float> grad_bias(columns);
            BERTFAST_DISPATCH(bias_gelu_backward(BiasGeluBackward<T>{grad.data(), x.data(), bias.data(), rows, columns,
                                                                     grad_x.data(), grad_bias.data()}));
            return Written() << grad_x << grad_bias;
        });
        std::vector<float> moments(2 * rows);
        check_([&] {
            std::vector<T> out(x.size());
            BERTFAST_DISPATCH(dropout_add_layer_norm(
                DropoutAddLayerNorm<T>{x.data(), residual.data(), weight.data(), bias.data(), 1e-12f, row_keys.data(),
                                       rule, rows, columns, out.data(), moments.data()}));
            return Written() << out << moments;
        });
        check_([&] {
            std::vector<T> grad_x(x.size()), grad_residual(x.size());
            std::vector<float> grad_weight(columns), grad_bias(columns);
            BERTFAST_DISPATCH(dropout_add_layer_norm_backward(DropoutAddLayerNormBackward<T>{
                grad.data(), x.data(), residual.data(), weight.data(), moments.data(), row_keys.data(), rule, rows,
                columns, grad_x.data(), grad_residual.data(), grad_weight.data(), grad_bias.data()}));
            return Written() << grad_x << grad_residual << grad_weight << grad_bias;
        });
    }

    template <typename T>
    void embedding(int64_t tokens, int64_t hidden, int64_t words, int64_t positions) {
        constexpr int64_t TYPES = 2;
        const auto ids = ints(tokens, words), types = ints(tokens, TYPES), places = ints(tokens, positions);
        const auto word = floats<float>(words * hidden), type = floats<float>(TYPES * hidden);
        const auto position = floats<float>(positions * hidden), weight = floats<float>(hidden);
        const auto bias = floats<float>(hidden);
        const auto row_keys = ints(tokens, 1 << 30);
        const auto grad = floats<T>(tokens * hidden);
        const Dropout rule = make_dropout(0.1, 12, 0);
        const EmbeddingTables tables = {ids.data(),  types.data(),    places.data(), word.data(),
                                        type.data(), position.data(), words,         TYPES,
                                        positions,   tokens,          hidden};
        std::vector<float> moments(2 * tokens);
        check_([&] {
            std::vector<T> out(tokens * hidden);
            BERTFAST_DISPATCH(embedding_layer_norm(EmbeddingLayerNorm<T>{
                tables, weight.data(), bias.data(), 1e-12f, row_keys.data(), rule, out.data(), moments.data()}));
            return Written() << out << moments;
        });
        check_([&] {
            std::vector<float> grad_sum(tokens * hidden), grad_word(word.size()), grad_type(type.size());
            std::vector<float> grad_position(position.size()), grad_weight(hidden), grad_bias(hidden);
            BERTFAST_DISPATCH(embedding_layer_norm_backward(EmbeddingLayerNormBackward<T>{
                grad.data(), tables, weight.data(), moments.data(), row_keys.data(), rule, grad_sum.data(),
                grad_word.data(), grad_type.data(), grad_position.data(), grad_weight.data(), grad_bias.data()}));
            return Written() << grad_sum << grad_word << grad_type << grad_position << grad_weight << grad_bias;
        });
    }

    void adam(const std::vector<int64_t>& sizes, bool copied) {
        const AdamState before(sizes, random_);
        check_([&] {
            AdamState state = before;
            state.take([](auto... arguments) { BERTFAST_DISPATCH(adam(arguments...)); }, copied);
            return Written() << state.parameters << state.exp_avgs << state.exp_avg_sqs << state.copies;
        });
    }

    // `queries` and `keys`: see PackedSequences.
    template <typename T>
    void attention(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads,
                   int64_t width) {
        const PackedSequences sequences(queries, keys);
        const int64_t query_size = sequences.query_size(heads, width);
        const int64_t key_size = sequences.key_value_size(heads, width);
        const auto query = floats<T>(query_size), grad = floats<T>(query_size), key_value = floats<T>(key_size);
        const auto row_keys = ints(sequences.cu_queries.back(), 1 << 30);
        const AttentionShape shape = sequences.shape(heads, width, row_keys);
        std::vector<float> log_sum_exp(sequences.cu_queries.back() * heads);
        check_([&] {
            std::vector<T> out(query_size);
            BERTFAST_DISPATCH(
                attention(shape, AttentionForward<T>{query.data(), key_value.data(), out.data(), log_sum_exp.data()}));
            return Written() << out << log_sum_exp;
        });
        check_([&] {
            std::vector<T> grad_query(query_size), grad_key_value(key_size);
            BERTFAST_DISPATCH(attention_backward(
                shape, AttentionBackward<T>{grad.data(), query.data(), key_value.data(), log_sum_exp.data(),
                                            grad_query.data(), grad_key_value.data()}));
            return Written() << grad_query << grad_key_value;
        });
    }

    // `columns` is a multiple of 8.
    template <typename T>
    void mlm_loss(int64_t rows, int64_t columns, int64_t vocab_size, int64_t slices) {
        const auto logits = floats<T>(rows * columns);
        const auto bias = floats<float>(columns), weights = floats<float>(rows);
        const auto labels = ints(rows, vocab_size);
        check_([&] {
            std::vector<T> gradients = logits;
            std::vector<float> losses(rows), bias_gradient(slices * columns);
            BERTFAST_DISPATCH(
                mlm_loss(MlmLossChunk<T>{gradients.data(), bias.data(), labels.data(), weights.data(), rows, columns,
                                         vocab_size, losses.data(), bias_gradient.data(), slices}));
            return Written() << gradients << losses << bias_gradient;
        });
    }

  private:
    template <typename T>
    std::vector<T> floats(int64_t count) {
        return random_floats<T>(count, random_);
    }

    std::vector<int64_t> ints(int64_t count, int64_t below) { return random_ints(count, random_, below); }

    std::mt19937 random_;
    const Check& check_;
};

}  // namespace bertfast
