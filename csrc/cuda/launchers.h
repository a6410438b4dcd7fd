// All CUDA kernels. Each function launches on `stream`, a cudaStream_t of the current device, and computes what its
// namesake in cpu/kernels.h computes. A failed launch is a std::runtime_error that names the kernel and its sizes, and
// so is a row, an example or a sequence that takes more shared memory than the device has.
//
// The host does not read device memory, which would stop the stream. An id beyond its table and a label beyond the
// vocabulary read nothing out of bounds: they make their row's results NaN.
#pragma once

#include "core/adam.h"
#include "core/attention.h"
#include "core/dropout.h"
#include "core/embedding.h"
#include "core/gelu.h"
#include "core/layer_norm.h"
#include "core/mlm_loss.h"
#include "core/sampling/batch.h"
#include "core/sampling/corpus.h"
#include "core/sampling/sampler_options.h"
#include "core/sampling/sentence_pair.h"
#include "cuda/fused_mlm_loss.h"

namespace bertfast::cuda {

// --- Adam ---

// `tensors` is on the host. Each launch carries its part as arguments, so that a captured launch keeps it.
void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule, void* stream);

// --- Attention ---

// In bfloat16 the probabilities and the scores' gradients are rounded to it before their products, as the plain-torch
// twin's are. Offsets are not checked.
void attention(const AttentionShape& shape, const AttentionForward<float>& tensors, void* stream);
void attention(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors, void* stream);
void attention_backward(const AttentionShape& shape, const AttentionBackward<float>& tensors, void* stream);
void attention_backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors, void* stream);

// --- Sums of columns: the second pass of sums over rows ---

// out[c] = sum_s partial[s * stride + c], s in [0, slices): without float atomics, so that the same call gives the same
// bits.
void sum_slices(const float* partial, int64_t slices, int64_t stride, int64_t columns, float* out, void* stream);

// --- Embeddings ---

void embedding_layer_norm(const EmbeddingLayerNorm<float>& call, void* stream);
void embedding_layer_norm(const EmbeddingLayerNorm<bfloat16>& call, void* stream);

// `partial`: working memory, (slices, 2 + types, hidden), slices >= 1.
void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<float>& call, const TokensByEntry& by_word,
                                   const TokensByPosition& by_position, float* partial, int64_t slices, void* stream);
void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<bfloat16>& call, const TokensByEntry& by_word,
                                   const TokensByPosition& by_position, float* partial, int64_t slices, void* stream);

// --- GELU ---

void bias_gelu(const BiasGelu<float>& call, void* stream);
void bias_gelu(const BiasGelu<bfloat16>& call, void* stream);

// `partial`: working memory, (slices, columns), slices >= 1.
void bias_gelu_backward(const BiasGeluBackward<float>& call, float* partial, int64_t slices, void* stream);
void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call, float* partial, int64_t slices, void* stream);

// --- Host memory ---

// Pins memory that the process may only read, so that every GPU reads it at its host address until `unpin`. Throws
// std::runtime_error where CUDA refuses.
void pin_read_only(void* memory, size_t bytes);
void unpin(void* memory);

// --- LayerNorm ---

void dropout_add_layer_norm(const DropoutAddLayerNorm<float>& call, void* stream);
void dropout_add_layer_norm(const DropoutAddLayerNorm<bfloat16>& call, void* stream);

// `partial`: working memory, (slices, 2, columns), slices >= 1.
void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<float>& call, float* partial, int64_t slices,
                                     void* stream);
void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<bfloat16>& call, float* partial, int64_t slices,
                                     void* stream);

// --- The masked-LM loss ---

// columns is a multiple of MLM_LOSS_ALIGNMENT / sizeof(T); logits and bias lie at multiples of MLM_LOSS_ALIGNMENT.
void mlm_loss(const MlmLossChunk<float>& chunk, void* stream);
void mlm_loss(const MlmLossChunk<bfloat16>& chunk, void* stream);

void fused_mlm_loss(const FusedMlmLossForward& call, void* stream);
void fused_mlm_loss_backward(const FusedMlmLossBackward& call, void* stream);

// --- The sampler ---

// `first`, the number of the first example, is on the device, so that a captured graph serves every step.
void plan(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count, Example* examples,
          int32_t* cu_seqlens, int32_t* cu_masked, void* stream);
void sample(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count,
            const Example* examples, const Batch& batch, void* stream);

}  // namespace bertfast::cuda
