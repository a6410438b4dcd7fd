// Dropout of rows: out[r, c] = x[r, c] / (1 - p) where kept, else 0.
#pragma once

#include "core/dropout.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void dropout(const float* x, const int64_t* row_keys, int64_t rows, int64_t columns,
                              const Dropout& rule, float* out))
BERTFAST_DECLARE(void dropout(const bfloat16* x, const int64_t* row_keys, int64_t rows, int64_t columns,
                              const Dropout& rule, bfloat16* out))
