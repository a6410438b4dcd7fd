// LayerNorm(dropout(x) + residual) of rows, and its gradients: the arguments on host and device.
#pragma once

#include "core/dropout.h"

namespace bertfast {

template <typename T>
struct DropoutAddLayerNorm {
    const T* x;         // (rows, columns)
    const T* residual;  // (rows, columns)
    const float* weight;
    const float* bias;
    float eps;
    const int64_t* row_keys;  // (rows,)
    Dropout dropout;
    int64_t rows, columns;
    T* out;                         // (rows, columns)
    float* moments;                 // (rows, 2): mean and 1 / sqrt(variance + eps), for the backward pass
    const float* x_bias = nullptr;  // (columns,): the kernel adds it to x; null if it has been added, as on a device
};

template <typename T>
struct DropoutAddLayerNormBackward {
    const T* grad;      // (rows, columns)
    const T* x;         // (rows, columns)
    const T* residual;  // (rows, columns)
    const float* weight;
    const float* moments;
    const int64_t* row_keys;
    Dropout dropout;
    int64_t rows, columns;
    T* grad_x;
    T* grad_residual;
    float* grad_weight;
    float* grad_bias;
    const float* x_bias = nullptr;
};

}  // namespace bertfast
