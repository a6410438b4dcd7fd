// All CPU kernels, once in each instruction set's namespace (simd/isa.h). Callers go through BERTFAST_DISPATCH
// (simd/dispatch.h). The headers in core/ describe what each computes and its arguments.
#pragma once

#include "core/adam.h"
#include "core/attention.h"
#include "core/dropout.h"
#include "core/embedding.h"
#include "core/gelu.h"
#include "core/layer_norm.h"
#include "core/matrix_product.h"
#include "core/mlm_loss.h"
#include "core/sampling/batch.h"
#include "core/sampling/corpus.h"
#include "core/sampling/sampler_options.h"
#include "core/sampling/sentence_pair.h"
#include "cpu/simd/isa.h"

// --- Adam ---

BERTFAST_DECLARE(void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule))

// --- Attention ---

BERTFAST_DECLARE(void attention(const AttentionShape& shape, const AttentionForward<float>& tensors))
BERTFAST_DECLARE(void attention(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors))
BERTFAST_DECLARE(void attention_backward(const AttentionShape& shape, const AttentionBackward<float>& tensors))
BERTFAST_DECLARE(void attention_backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors))

// --- Sums of columns: the gradient of a bias ---

// sums[c] = sum_r x[r, c] in float32, of x (rows, columns).
BERTFAST_DECLARE(void column_sums(const float* x, int64_t rows, int64_t columns, float* sums))
BERTFAST_DECLARE(void column_sums(const bfloat16* x, int64_t rows, int64_t columns, float* sums))

// --- Embeddings ---

BERTFAST_DECLARE(void embedding_layer_norm(const EmbeddingLayerNorm<float>& call))
BERTFAST_DECLARE(void embedding_layer_norm(const EmbeddingLayerNorm<bfloat16>& call))
BERTFAST_DECLARE(void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<float>& call))
BERTFAST_DECLARE(void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<bfloat16>& call))

// --- GELU ---

BERTFAST_DECLARE(void bias_gelu(const BiasGelu<float>& call))
BERTFAST_DECLARE(void bias_gelu(const BiasGelu<bfloat16>& call))
BERTFAST_DECLARE(void bias_gelu_backward(const BiasGeluBackward<float>& call))
BERTFAST_DECLARE(void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call))

// --- LayerNorm ---

BERTFAST_DECLARE(void dropout_add_layer_norm(const DropoutAddLayerNorm<float>& call))
BERTFAST_DECLARE(void dropout_add_layer_norm(const DropoutAddLayerNorm<bfloat16>& call))
BERTFAST_DECLARE(void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<float>& call))
BERTFAST_DECLARE(void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<bfloat16>& call))

// --- The masked-LM loss ---

// One thread takes a whole slice of rows, so that the sums over rows have a fixed order.
BERTFAST_DECLARE(void mlm_loss(const MlmLossChunk<float>& chunk))
BERTFAST_DECLARE(void mlm_loss(const MlmLossChunk<bfloat16>& chunk))

// --- Matrix products ---

// Sums are float32, of bfloat16 in pairs where the processor multiplies them. The factors may not overlap the result.
// An element's bits depend on its row, its column and the layout of the left factor alone.
BERTFAST_DECLARE(void matrix_product(const MatrixProduct<float, float>& call))
BERTFAST_DECLARE(void matrix_product(const MatrixProduct<bfloat16, float>& call))
BERTFAST_DECLARE(void matrix_product(const MatrixProduct<bfloat16, bfloat16>& call))

// --- The sampler ---

// The segments of the examples [first, first + count), and where their tokens and their predictions begin in a packed
// batch (count + 1 numbers each).
BERTFAST_DECLARE(void plan(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int64_t count,
                           Example* examples, int32_t* cu_seqlens, int32_t* cu_masked))

// Fills `batch` with the planned examples. Throws std::invalid_argument if cu_masked is not their plan.
BERTFAST_DECLARE(void sample(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int64_t count,
                             const Example* examples, const Batch& batch))
