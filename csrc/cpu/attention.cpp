#include "cpu/attention_bf16.h"
#include "cpu/attention_softmax.h"
#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/simd/matrix.h"
#include "cpu/simd/parallel.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

template <typename T>
void forward(const AttentionShape& shape, const AttentionForward<T>& tensors, int64_t begin, int64_t end) {
    const int64_t width = shape.head_dim, most = shape.max_seqlen, block = most < BLOCK ? most : BLOCK;
    const int64_t wide = row_stride(width), across = row_stride(most);  // strides: a head's rows, scores
    Scratch scratch(2 * block * wide + width * across + most * wide + block * across + DropoutFactors::room_for(most) +
                    HeadBiases::room_for(shape));
    float* const query = scratch.take(block * wide);
    float* const out = scratch.take(block * wide);
    float* const key_transposed = scratch.take(width * across);
    float* const value = scratch.take(most * wide);
    float* const scores = scratch.take(block * across);
    DropoutFactors factors(shape.dropout, most, scratch);
    HeadBiases biases(shape, scratch);
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));

    for (int64_t item = begin; item < end; ++item) {
        const AttentionPart part(shape, item);
        factors.select(part.keys, shape.dropout.place + static_cast<uint32_t>(part.head));
        biases.select(part.head);
        if (part.queries == 0) continue;
        const int64_t key_row = row_stride(part.keys);
        pack_transposed(tensors.key_value + part.key_offset, part.key_stride, part.keys, width, biases.key,
                        key_transposed, key_row);
        pack(tensors.key_value + part.value_offset, part.key_stride, part.keys, width, biases.value, value, wide);
        for (int64_t first = 0; first < part.queries; first += block) {
            const int64_t rows = part.queries - first < block ? part.queries - first : block;
            const int64_t offset = part.query_offset + first * part.query_stride;
            const int64_t* const row_keys = shape.row_keys + part.first_query + first;
            pack(tensors.query + offset, part.query_stride, rows, width, biases.query, query, wide);
            product(rows, part.keys, width, query, wide, 1, key_transposed, key_row, scores, key_row, false);
            Softmax softmaxes[BLOCK];
            for (int64_t i = 0; i < rows; ++i) {
                float* const row = scores + i * key_row;
                softmaxes[i] = softmax(row, part.keys, scale, factors.of(row_keys[i]), row);
            }
            product(rows, width, part.keys, scores, key_row, 1, value, wide, out, wide, false);
            for (int64_t i = 0; i < rows; ++i) {
                tensors.log_sum_exp[(part.first_query + first + i) * shape.heads + part.head] =
                    softmaxes[i].log_sum_exp(scale);
            }
            unpack_rows(
                out, wide, rows, width, [&](int64_t i) { return 1.0f / softmaxes[i].sum; }, tensors.out + offset,
                part.query_stride);
        }
    }
}

template <typename T>
void backward(const AttentionShape& shape, const AttentionBackward<T>& tensors, int64_t begin, int64_t end) {
    const int64_t width = shape.head_dim, most = shape.max_seqlen, block = most < BLOCK ? most : BLOCK;
    const int64_t wide = row_stride(width), across = row_stride(most);  // strides: a head's rows, scores
    Scratch scratch(3 * block * wide + 2 * width * across + 3 * most * wide + 2 * block * across +
                    DropoutFactors::room_for(most) + HeadBiases::room_for(shape));
    float* const query = scratch.take(block * wide);
    float* const grad = scratch.take(block * wide);
    float* const grad_query = scratch.take(block * wide);
    float* const key_transposed = scratch.take(width * across);
    float* const value_transposed = scratch.take(width * across);
    float* const key = scratch.take(most * wide);
    float* const grad_key = scratch.take(most * wide);
    float* const grad_value = scratch.take(most * wide);
    float* const dropped = scratch.take(block * across);
    float* const grad_scores = scratch.take(block * across);
    DropoutFactors factors(shape.dropout, most, scratch);
    HeadBiases biases(shape, scratch);
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));

    for (int64_t item = begin; item < end; ++item) {
        const AttentionPart part(shape, item);
        if (part.keys == 0) continue;  // a batch of empty sequences may have null pointers
        factors.select(part.keys, shape.dropout.place + static_cast<uint32_t>(part.head));
        biases.select(part.head);
        const int64_t key_row = row_stride(part.keys);
        const T* const keys = tensors.key_value + part.key_offset;
        if (part.queries > 0) {
            pack(keys, part.key_stride, part.keys, width, biases.key, key, wide);
            pack_transposed(keys, part.key_stride, part.keys, width, biases.key, key_transposed, key_row);
            pack_transposed(tensors.key_value + part.value_offset, part.key_stride, part.keys, width, biases.value,
                            value_transposed, key_row);
        } else {
            memset(grad_key, 0, part.keys * wide * sizeof(float));
            memset(grad_value, 0, part.keys * wide * sizeof(float));
        }
        for (int64_t first = 0; first < part.queries; first += block) {
            const int64_t rows = part.queries - first < block ? part.queries - first : block;
            const int64_t offset = part.query_offset + first * part.query_stride;
            const int64_t* const row_keys = shape.row_keys + part.first_query + first;
            const bool add = first > 0;
            pack(tensors.query + offset, part.query_stride, rows, width, biases.query, query, wide);
            pack(tensors.grad + offset, part.query_stride, rows, width, nullptr, grad, wide);
            product(rows, part.keys, width, query, wide, 1, key_transposed, key_row, dropped, key_row, false);
            product(rows, part.keys, width, grad, wide, 1, value_transposed, key_row, grad_scores, key_row, false);
            for (int64_t i = 0; i < rows; ++i) {
                const float log_sum_exp = tensors.log_sum_exp[(part.first_query + first + i) * shape.heads + part.head];
                float *const scores = dropped + i * key_row, *const gradients = grad_scores + i * key_row;
                backward_row(scores, gradients, part.keys, scale, log_sum_exp, factors.of(row_keys[i]), scores,
                             gradients);
            }
            product(part.keys, width, rows, dropped, 1, key_row, grad, wide, grad_value, wide, add);
            product(part.keys, width, rows, grad_scores, 1, key_row, query, wide, grad_key, wide, add);
            product(rows, width, part.keys, grad_scores, key_row, 1, key, wide, grad_query, wide, false);
            unpack(grad_query, wide, rows, width, scale, tensors.grad_query + offset, part.query_stride);
        }
        unpack(grad_key, wide, part.keys, width, scale, tensors.grad_key_value + part.key_offset, part.key_stride);
        unpack(grad_value, wide, part.keys, width, 1.0f, tensors.grad_key_value + part.value_offset, part.key_stride);
    }
}

#if defined(BERTFAST_HAS_BF16_PRODUCTS)
void forward(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors, int64_t begin, int64_t end) {
    forward_bf16(shape, tensors, begin, end);
}

void backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors, int64_t begin, int64_t end) {
    backward_bf16(shape, tensors, begin, end);
}
#endif

// Calls body(begin, end) for ranges of items, an item being one sequence and head.
template <typename Body>
void for_items(const AttentionShape& shape, const Body& body) {
    parallel_for(shape.batch * shape.heads, 1, body);
}

}  // namespace

void attention(const AttentionShape& shape, const AttentionForward<float>& tensors) {
    for_items(shape, [&](int64_t begin, int64_t end) { forward(shape, tensors, begin, end); });
}

void attention(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors) {
    for_items(shape, [&](int64_t begin, int64_t end) { forward(shape, tensors, begin, end); });
}

void attention_backward(const AttentionShape& shape, const AttentionBackward<float>& tensors) {
    for_items(shape, [&](int64_t begin, int64_t end) { backward(shape, tensors, begin, end); });
}

void attention_backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors) {
    for_items(shape, [&](int64_t begin, int64_t end) { backward(shape, tensors, begin, end); });
}

}  // namespace bertfast::cpu::BERTFAST_ISA
