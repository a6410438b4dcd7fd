// gelu(x + bias) of rows, and its gradients.
#pragma once

#include "core/gelu.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void bias_gelu(const BiasGelu<float>& call))
BERTFAST_DECLARE(void bias_gelu(const BiasGelu<bfloat16>& call))
BERTFAST_DECLARE(void bias_gelu_backward(const BiasGeluBackward<float>& call))
BERTFAST_DECLARE(void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call))
