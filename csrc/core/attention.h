// Attention over packed sequences, dropout(softmax(q k^T / sqrt(head_dim))) v for each sequence and head: its arguments
// on host and device.
#pragma once

#include "core/dropout.h"

namespace bertfast {

struct AttentionShape {
    int64_t batch, heads, head_dim;
    const int32_t* cu_seqlens_q;  // (batch + 1,)
    const int32_t* cu_seqlens_k;  // (batch + 1,)
    int64_t max_seqlen;           // of both queries and keys
    const int64_t* row_keys;      // (query tokens,)
    Dropout dropout;              // head h draws at place dropout.place + h
    // (heads, head_dim) and (2, heads, head_dim): biases that the kernel adds to queries, keys and values. Null if they
    // have been added already, as on a device.
    const float* query_bias = nullptr;
    const float* key_value_bias = nullptr;
};

template <typename T>
struct AttentionForward {
    const T* query;      // (query tokens, heads, head_dim)
    const T* key_value;  // (tokens, 2, heads, head_dim)
    T* out;              // (query tokens, heads, head_dim)
    float* log_sum_exp;  // (query tokens, heads): of the scaled scores, divided by the scale
};

template <typename T>
struct AttentionBackward {
    const T* grad;  // (query tokens, heads, head_dim)
    const T* query;
    const T* key_value;
    const float* log_sum_exp;
    T* grad_query;
    T* grad_key_value;
};

// One sequence and head: where its rows begin, and how many it has.
struct AttentionPart {
    int64_t head, first_query, queries, first_key, keys;
    int64_t query_stride, key_stride;  // elements between tokens
    int64_t query_offset, key_offset, value_offset;

    BERTFAST_HD_MEMBER AttentionPart(const AttentionShape& shape, int64_t item)
        : head(item % shape.heads),
          first_query(shape.cu_seqlens_q[item / shape.heads]),
          queries(shape.cu_seqlens_q[item / shape.heads + 1] - first_query),
          first_key(shape.cu_seqlens_k[item / shape.heads]),
          keys(shape.cu_seqlens_k[item / shape.heads + 1] - first_key),
          query_stride(shape.heads * shape.head_dim),
          key_stride(2 * query_stride),
          query_offset(first_query * query_stride + head * shape.head_dim),
          key_offset(first_key * key_stride + head * shape.head_dim),
          value_offset(key_offset + query_stride) {}
};

}  // namespace bertfast
