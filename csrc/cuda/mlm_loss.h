// Launches cpu/mlm_loss.h's work on a CUDA stream (a cudaStream_t). A label outside [0, vocab_size) reads nothing out
// of bounds: it makes the row's loss and gradient NaN, since to report it would stop the stream.
#pragma once

#include "core/mlm_loss.h"

namespace bertfast::cuda {

// columns is a multiple of PACK_BYTES / sizeof(T); logits and bias lie at multiples of PACK_BYTES.
constexpr int64_t PACK_BYTES = 16;

void mlm_loss(const MlmLossChunk<float>& chunk, void* stream);
void mlm_loss(const MlmLossChunk<bfloat16>& chunk, void* stream);

}  // namespace bertfast::cuda
