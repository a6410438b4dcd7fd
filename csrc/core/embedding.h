// dropout(LayerNorm(word + type + position)) of tokens, and the gradients of the tables: the arguments on host and
// device.
#pragma once

#include "core/dropout.h"

namespace bertfast {

struct EmbeddingTables {
    const int64_t* input_ids;  // (tokens,), like the next two; on a CPU, every id is in its table
    const int64_t* token_type_ids;
    const int64_t* position_ids;
    const float* word;      // (words, hidden)
    const float* type;      // (types, hidden)
    const float* position;  // (positions, hidden)
    int64_t words, types, positions, tokens, hidden;
};

template <typename T>
struct EmbeddingLayerNorm {
    EmbeddingTables tables;
    const float* weight;
    const float* bias;
    float eps;
    const int64_t* row_keys;  // (tokens,)
    Dropout dropout;
    T* out;          // (tokens, hidden)
    float* moments;  // (tokens, 2): mean and 1 / sqrt(variance + eps), for the backward pass
};

template <typename T>
struct EmbeddingLayerNormBackward {
    const T* grad;  // (tokens, hidden)
    EmbeddingTables tables;
    const float* weight;
    const float* moments;
    const int64_t* row_keys;
    Dropout dropout;
    float* grad_sum;   // (tokens, hidden), working memory
    float* grad_word;  // accumulated into, like grad_position
    float* grad_type;
    float* grad_position;
    float* grad_weight;
    float* grad_bias;
};

// Which tokens hold each entry of a table: entry e's are order[begin[e]] up to order[begin[e + 1]], ascending.
struct TokensByEntry {
    const int64_t* order;  // (tokens,)
    const int64_t* begin;  // (entries + 1,)
};

// Which tokens are at each position: cu_seqlens[s] + p in each sequence s that is longer than p.
struct TokensByPosition {
    const int32_t* cu_seqlens;  // (sequences + 1,)
    int64_t sequences;
};

}  // namespace bertfast
