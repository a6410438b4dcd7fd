// Launches cpu/embedding.h's work on a CUDA stream (a cudaStream_t). Raises std::runtime_error where a row takes more
// shared memory than the device has. An id beyond its table reads nothing out of bounds: it makes the token's result
// NaN, since to report it would stop the stream.
#pragma once

#include "core/embedding.h"

namespace bertfast::cuda {

// Which tokens hold each entry of a table: entry e's are order[begin[e]] up to order[begin[e + 1]], ascending.
struct TokensByEntry {
    const int64_t* order;  // (tokens,)
    const int64_t* begin;  // (entries + 1,)
};

void embedding_layer_norm(const EmbeddingLayerNorm<float>& call, void* stream);
void embedding_layer_norm(const EmbeddingLayerNorm<bfloat16>& call, void* stream);

// `partial`: working memory, (slices, 2 + types, hidden), slices >= 1.
void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<float>& call, const TokensByEntry& by_word,
                                   const TokensByEntry& by_position, float* partial, int64_t slices, void* stream);
void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<bfloat16>& call, const TokensByEntry& by_word,
                                   const TokensByEntry& by_position, float* partial, int64_t slices, void* stream);

}  // namespace bertfast::cuda
