// The host as the device: its memory, and the CPU's kernels behind the CUDA launchers' names.
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "cuda/launchers.h"
#include "device.h"
#include "fused_stepping.h"

namespace bertfast::device {

void require() {}

void* allocate(size_t bytes) {
    return std::memset(std::aligned_alloc(256, (bytes / 256 + 1) * 256), 0xFF, bytes);
}

void release(void* address) {
    std::free(address);
}

void to_device(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
}

void to_host(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
}

const char* name() {
    return "the host, standing in";
}

}  // namespace bertfast::device

namespace bertfast::cuda {

#define BOTH_TYPES(STAND_IN) STAND_IN(float) STAND_IN(bfloat16)

#define STAND_IN(T)                                                                                            \
    void bias_gelu(const BiasGelu<T>& call, void*) {                                                           \
        BERTFAST_DISPATCH(bias_gelu(call));                                                                    \
    }                                                                                                          \
    void bias_gelu_backward(const BiasGeluBackward<T>& call, float*, int64_t, void*) {                         \
        BERTFAST_DISPATCH(bias_gelu_backward(call));                                                           \
    }                                                                                                          \
    void dropout_add_layer_norm(const DropoutAddLayerNorm<T>& call, void*) {                                   \
        BERTFAST_DISPATCH(dropout_add_layer_norm(call));                                                       \
    }                                                                                                          \
    void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<T>& call, float*, int64_t, void*) { \
        BERTFAST_DISPATCH(dropout_add_layer_norm_backward(call));                                              \
    }                                                                                                          \
    void embedding_layer_norm(const EmbeddingLayerNorm<T>& call, void*) {                                      \
        BERTFAST_DISPATCH(embedding_layer_norm(call));                                                         \
    }                                                                                                          \
    void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<T>& call, const TokensByEntry&,        \
                                       const TokensByPosition&, float*, int64_t, void*) {                      \
        BERTFAST_DISPATCH(embedding_layer_norm_backward(call));                                                \
    }                                                                                                          \
    void attention(const AttentionShape& shape, const AttentionForward<T>& tensors, void*) {                   \
        BERTFAST_DISPATCH(attention(shape, tensors));                                                          \
    }                                                                                                          \
    void attention_backward(const AttentionShape& shape, const AttentionBackward<T>& tensors, void*) {         \
        BERTFAST_DISPATCH(attention_backward(shape, tensors));                                                 \
    }                                                                                                          \
    void mlm_loss(const MlmLossChunk<T>& chunk, void*) {                                                       \
        BERTFAST_DISPATCH(mlm_loss(chunk));                                                                    \
    }

BOTH_TYPES(STAND_IN)

// The CPU has no such kernel, so this steps the CUDA kernel itself.
void fused_mlm_loss(const FusedMlmLossForward& call, void*) {
    step_fused<WarpProducts>(call, false);
}

void fused_mlm_loss_backward(const FusedMlmLossBackward& call, void*) {
    step_fused<WarpProducts>(call, false);
}

void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule, void*) {
    BERTFAST_DISPATCH(adam(tensors, count, rule));
}

void plan(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count, Example* examples,
          int32_t* cu_seqlens, int32_t* cu_masked, void*) {
    BERTFAST_DISPATCH(plan(corpus, options, *first, count, examples, cu_seqlens, cu_masked));
}

void sample(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count,
            const Example* examples, const Batch& batch, void*) {
    BERTFAST_DISPATCH(sample(corpus, options, *first, count, examples, batch));
}

}  // namespace bertfast::cuda
