// Launches cpu/attention.h's work on a CUDA stream (a cudaStream_t). In bfloat16 the probabilities and the scores'
// gradients are rounded to it before their products, as the plain-torch twin's are. Offsets are not looked at here.
#pragma once

#include "core/attention.h"

namespace bertfast::cuda {

void attention(const AttentionShape& shape, const AttentionForward<float>& tensors, void* stream);
void attention(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors, void* stream);
void attention_backward(const AttentionShape& shape, const AttentionBackward<float>& tensors, void* stream);
void attention_backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors, void* stream);

}  // namespace bertfast::cuda
