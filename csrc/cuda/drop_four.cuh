// Dropout of four neighbouring columns, in registers.
#pragma once

#include "core/dropout.h"

namespace bertfast::cuda {

// Drops, in place, four columns of the row with this key, from `column` on.
BERTFAST_HD void drop_four(const Dropout& dropout, int64_t row_key, int64_t column, float (&x)[4]) {
    const uint32_t kept = kept_four(dropout, static_cast<uint64_t>(row_key), static_cast<uint32_t>(column));
    for (int i = 0; i < 4; ++i) x[i] = kept >> i & 1 ? x[i] * dropout.scale : 0.0f;
}

}  // namespace bertfast::cuda
