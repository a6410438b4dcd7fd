// gelu(x + bias) of rows, gelu(u) = u Phi(u), and its gradients.
#pragma once

#include "core/bfloat16.h"
#include "cpu/isa.h"

namespace bertfast {

template <typename T>
struct BiasGelu {
    const T* x;         // (rows, columns)
    const float* bias;  // (columns,)
    int64_t rows, columns;
    T* out;  // (rows, columns)
};

template <typename T>
struct BiasGeluBackward {
    const T* grad;      // (rows, columns)
    const T* x;         // (rows, columns)
    const float* bias;  // (columns,)
    int64_t rows, columns;
    T* grad_x;         // (rows, columns)
    float* grad_bias;  // (columns,)
};

}  // namespace bertfast

BERTFAST_DECLARE(void bias_gelu(const BiasGelu<float>& call))
BERTFAST_DECLARE(void bias_gelu(const BiasGelu<bfloat16>& call))
BERTFAST_DECLARE(void bias_gelu_backward(const BiasGeluBackward<float>& call))
BERTFAST_DECLARE(void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call))
