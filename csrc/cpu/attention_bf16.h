// Attention in bfloat16 on processors that multiply it. Probabilities and their gradients are rounded to bfloat16
// before they are multiplied, as torch's are. Everything between the products is in float32.
#pragma once

#include "cpu/attention_softmax.h"
#include "cpu/dropout_factors.h"
#include "cpu/simd/amx_tiles.h"
#include "cpu/simd/bf16_dot_pairs.h"
#include "cpu/simd/bfmmla_blocks.h"

#if defined(BERTFAST_HAS_BF16_PRODUCTS)

namespace bertfast::cpu::BERTFAST_ISA {

#if defined(__AMX_BF16__)
using Products = TileProducts;
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
using Products = BlockProducts;
#else
using Products = VectorProducts;
#endif

// Takes memory for `count` bfloat16 numbers.
static inline bfloat16* take_bfloat16(Scratch& scratch, int64_t count) {
    return reinterpret_cast<bfloat16*>(scratch.take(count / 2));
}

// Fills a row with zeros from its last whole vector to the depth of its product.
static inline void zero_row_end(bfloat16* row, int64_t keys, int64_t depth) {
    const int64_t written = round_up(keys, LANES);
    if (written < depth) memset(row + written, 0, (depth - written) * sizeof(bfloat16));
}

static inline void forward_bf16(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors, int64_t begin,
                                int64_t end) {
    const int64_t width = shape.head_dim, most = shape.max_seqlen, block = most < BLOCK ? most : BLOCK;
    const int64_t wide = round_up(width, PAIRED), across = round_up(most, PAIRED);  // strides: a head's rows, scores
    const int64_t tall = round_up(block, PAIRED);
    Scratch scratch(tall * wide / 2 + tall * wide + 3 * across * wide / 2 + 3 * tall * across / 2 +
                    DropoutFactors::room_for(most) + HeadBiases::room_for(shape));
    bfloat16* const query = take_bfloat16(scratch, tall * wide);
    float* const out = scratch.take(tall * wide);
    bfloat16* const padded = take_bfloat16(scratch, across * wide);
    float* const key_pairs = scratch.take(across * wide / 2);
    float* const value_pairs = scratch.take(across * wide / 2);
    float* const scores = scratch.take(tall * across);
    bfloat16* const dropped = take_bfloat16(scratch, tall * across);
    DropoutFactors factors(shape.dropout, most, scratch);
    HeadBiases biases(shape, scratch);
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));
    const Products product;

    for (int64_t item = begin; item < end; ++item) {
        const AttentionPart part(shape, item);
        factors.select(part.keys, shape.dropout.place + static_cast<uint32_t>(part.head));
        biases.select(part.head);
        if (part.queries == 0) continue;
        const int64_t depth = round_up(part.keys, Products::DEPTH);
        pad(tensors.key_value + part.key_offset, part.key_stride, part.keys, width, biases.key, padded, depth, wide);
        pair_columns(padded, depth, wide, key_pairs, across);
        pad(tensors.key_value + part.value_offset, part.key_stride, part.keys, width, biases.value, padded, depth,
            wide);
        pair_rows(padded, depth, wide, value_pairs);
        for (int64_t first = 0; first < part.queries; first += block) {
            const int64_t rows = part.queries - first < block ? part.queries - first : block;
            const int64_t offset = part.query_offset + first * part.query_stride;
            const int64_t* const row_keys = shape.row_keys + part.first_query + first;
            pad(tensors.query + offset, part.query_stride, rows, width, biases.query, query,
                round_up(rows, Products::DEPTH), wide);
            product(rows, part.keys, wide, query, wide, key_pairs, across, scores, across, false);
            Softmax softmaxes[BLOCK];
            for (int64_t i = 0; i < rows; ++i) {
                bfloat16* const row = dropped + i * across;
                softmaxes[i] = softmax(scores + i * across, part.keys, scale, factors.of(row_keys[i]), row);
                zero_row_end(row, part.keys, depth);
            }
            product(rows, width, depth, dropped, across, value_pairs, wide, out, wide, false);
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

static inline void backward_bf16(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors, int64_t begin,
                                 int64_t end) {
    const int64_t width = shape.head_dim, most = shape.max_seqlen, block = most < BLOCK ? most : BLOCK;
    const int64_t wide = round_up(width, PAIRED), across = round_up(most, PAIRED);  // strides: a head's rows, scores
    const int64_t tall = round_up(block, PAIRED);
    Scratch scratch(3 * tall * wide + 4 * across * wide + 4 * tall * across + DropoutFactors::room_for(most) +
                    HeadBiases::room_for(shape));
    bfloat16* const query = take_bfloat16(scratch, tall * wide);
    bfloat16* const grad = take_bfloat16(scratch, tall * wide);
    float* const query_pairs = scratch.take(tall * wide / 2);
    float* const grad_pairs = scratch.take(tall * wide / 2);
    float* const grad_query = scratch.take(tall * wide);
    bfloat16* const padded = take_bfloat16(scratch, across * wide);
    float* const key_columns = scratch.take(across * wide / 2);
    float* const value_columns = scratch.take(across * wide / 2);
    float* const key_rows = scratch.take(across * wide / 2);
    float* const grad_key = scratch.take(across * wide);
    float* const grad_value = scratch.take(across * wide);
    float* const scores = scratch.take(tall * across);
    float* const gradients = scratch.take(tall * across);
    bfloat16* const dropped = take_bfloat16(scratch, tall * across);
    bfloat16* const grad_scores = take_bfloat16(scratch, tall * across);
    float* const pairs = scratch.take(tall * across / 2);
    float* const workspace = scratch.take(tall * across / 2);
    DropoutFactors factors(shape.dropout, most, scratch);
    HeadBiases biases(shape, scratch);
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));
    const Products product;

    for (int64_t item = begin; item < end; ++item) {
        const AttentionPart part(shape, item);
        if (part.keys == 0) continue;  // a batch of empty sequences may have null pointers
        factors.select(part.keys, shape.dropout.place + static_cast<uint32_t>(part.head));
        biases.select(part.head);
        const int64_t depth = round_up(part.keys, Products::DEPTH);
        if (part.queries > 0) {
            pad(tensors.key_value + part.value_offset, part.key_stride, part.keys, width, biases.value, padded, depth,
                wide);
            pair_columns(padded, depth, wide, value_columns, across);
            pad(tensors.key_value + part.key_offset, part.key_stride, part.keys, width, biases.key, padded, depth,
                wide);
            pair_columns(padded, depth, wide, key_columns, across);
            pair_rows(padded, depth, wide, key_rows);
        } else {
            memset(grad_key, 0, part.keys * wide * sizeof(float));
            memset(grad_value, 0, part.keys * wide * sizeof(float));
        }
        for (int64_t first = 0; first < part.queries; first += block) {
            const int64_t rows = part.queries - first < block ? part.queries - first : block;
            const int64_t row_depth = round_up(rows, Products::DEPTH);
            const int64_t offset = part.query_offset + first * part.query_stride;
            const int64_t* const row_keys = shape.row_keys + part.first_query + first;
            const bool add = first > 0;
            pad(tensors.query + offset, part.query_stride, rows, width, biases.query, query, row_depth, wide);
            pad(tensors.grad + offset, part.query_stride, rows, width, nullptr, grad, row_depth, wide);
            product(rows, part.keys, wide, query, wide, key_columns, across, scores, across, false);
            product(rows, part.keys, wide, grad, wide, value_columns, across, gradients, across, false);
            for (int64_t i = 0; i < rows; ++i) {
                const float log_sum_exp = tensors.log_sum_exp[(part.first_query + first + i) * shape.heads + part.head];
                bfloat16 *const dropped_row = dropped + i * across, *const grad_row = grad_scores + i * across;
                backward_row(scores + i * across, gradients + i * across, part.keys, scale, log_sum_exp,
                             factors.of(row_keys[i]), dropped_row, grad_row);
                zero_row_end(dropped_row, part.keys, depth);
                zero_row_end(grad_row, part.keys, depth);
            }
            // grad_key and grad_value sum over the rows, so that the padding must be zero.
            memset(dropped + rows * across, 0, (row_depth - rows) * across * sizeof(bfloat16));
            memset(grad_scores + rows * across, 0, (row_depth - rows) * across * sizeof(bfloat16));
            const auto product_over_rows = [&](const bfloat16* left, const bfloat16* right, float* right_pairs,
                                               float* to) {
                pair_rows(left, row_depth, across, pairs);
                pair_rows(right, row_depth, wide, right_pairs);
                product.of_columns(part.keys, width, row_depth, pairs, across, workspace, right_pairs, wide, to, wide,
                                   add);
            };
            product_over_rows(dropped, grad, grad_pairs, grad_value);
            product_over_rows(grad_scores, query, query_pairs, grad_key);
            product(rows, width, depth, grad_scores, across, key_rows, wide, grad_query, wide, false);
            unpack(grad_query, wide, rows, width, scale, tensors.grad_query + offset, part.query_stride);
        }
        unpack(grad_key, wide, part.keys, width, scale, tensors.grad_key_value + part.key_offset, part.key_stride);
        unpack(grad_value, wide, part.keys, width, 1.0f, tensors.grad_key_value + part.value_offset, part.key_stride);
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA

#endif
