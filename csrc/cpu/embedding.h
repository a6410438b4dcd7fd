// dropout(LayerNorm(word + type + position)) of tokens, and the gradients of the tables.
#pragma once

#include "core/embedding.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void embedding_layer_norm(const EmbeddingLayerNorm<float>& call))
BERTFAST_DECLARE(void embedding_layer_norm(const EmbeddingLayerNorm<bfloat16>& call))
BERTFAST_DECLARE(void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<float>& call))
BERTFAST_DECLARE(void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<bfloat16>& call))
