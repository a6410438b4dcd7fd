// gelu(x + bias) of rows, where gelu(u) = u Phi(u), and its gradients: the arguments on host and device.
#pragma once

#include "core/math/bfloat16.h"

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
