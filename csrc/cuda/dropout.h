// Launches dropout on a CUDA stream (a cudaStream_t). As cpu/dropout.h.
#pragma once

#include "core/dropout.h"

namespace bertfast::cuda {

void dropout(const float* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule, float* out,
             void* stream);
void dropout(const bfloat16* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule,
             bfloat16* out, void* stream);

}  // namespace bertfast::cuda
