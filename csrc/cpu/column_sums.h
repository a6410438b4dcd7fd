// The sum of each column of x (rows, columns), in float32: the gradient of a bias.
#pragma once

#include "core/math/bfloat16.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void column_sums(const float* x, int64_t rows, int64_t columns, float* sums))
BERTFAST_DECLARE(void column_sums(const bfloat16* x, int64_t rows, int64_t columns, float* sums))
