// Launches cpu/gelu.h's work on a CUDA stream (a cudaStream_t).
#pragma once

#include "core/gelu.h"

namespace bertfast::cuda {

void bias_gelu(const BiasGelu<float>& call, void* stream);
void bias_gelu(const BiasGelu<bfloat16>& call, void* stream);

// `partial`: working memory, (slices, columns), slices >= 1.
void bias_gelu_backward(const BiasGeluBackward<float>& call, float* partial, int64_t slices, void* stream);
void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call, float* partial, int64_t slices, void* stream);

}  // namespace bertfast::cuda
