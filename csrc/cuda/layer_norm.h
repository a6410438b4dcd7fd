// Launches cpu/layer_norm.h's work on a CUDA stream (a cudaStream_t). Raises std::runtime_error where a row takes more
// shared memory than the device has.
#pragma once

#include "core/layer_norm.h"

namespace bertfast::cuda {

void dropout_add_layer_norm(const DropoutAddLayerNorm<float>& call, void* stream);
void dropout_add_layer_norm(const DropoutAddLayerNorm<bfloat16>& call, void* stream);

// `partial`: working memory, (slices, 2, columns), slices >= 1.
void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<float>& call, float* partial, int64_t slices,
                                     void* stream);
void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<bfloat16>& call, float* partial, int64_t slices,
                                     void* stream);

}  // namespace bertfast::cuda
