// LayerNorm(dropout(x) + residual) of rows, and its gradients.
#pragma once

#include "core/layer_norm.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void dropout_add_layer_norm(const DropoutAddLayerNorm<float>& call))
BERTFAST_DECLARE(void dropout_add_layer_norm(const DropoutAddLayerNorm<bfloat16>& call))
BERTFAST_DECLARE(void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<float>& call))
BERTFAST_DECLARE(void dropout_add_layer_norm_backward(const DropoutAddLayerNormBackward<bfloat16>& call))
