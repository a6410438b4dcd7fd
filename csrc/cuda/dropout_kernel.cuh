// One thread of the dropout kernel: four neighbouring columns.
#pragma once

#include "core/dropout.h"
#include "cuda/vectorized_access.cuh"

namespace bertfast::cuda {

// Drops, in place, four columns of the row with this key, from `column` on.
BERTFAST_HD void drop_four(const Dropout& dropout, int64_t row_key, int64_t column, float (&x)[4]) {
    const uint32_t kept = kept_four(dropout, static_cast<uint64_t>(row_key), static_cast<uint32_t>(column));
    for (int i = 0; i < 4; ++i) x[i] = kept >> i & 1 ? x[i] * dropout.scale : 0.0f;
}

template <typename T>
struct DropoutArguments {
    const T* x;               // (rows, columns)
    const int64_t* row_keys;  // (rows,)
    int64_t rows, columns;
    Dropout dropout;
    T* out;      // (rows, columns)
    bool whole;  // see in_fours
};

// item in [0, rows * fours(columns))
template <typename T>
BERTFAST_HD void dropout_thread(const DropoutArguments<T>& arguments, int64_t item) {
    const int64_t row = item / fours(arguments.columns), column = 4 * (item % fours(arguments.columns));
    const int64_t first = row * arguments.columns + column, left = arguments.columns - column;
    float x[4];
    load_four(arguments.x + first, left, arguments.whole, x);
    drop_four(arguments.dropout, arguments.row_keys[row], column, x);
    store_four(x, left, arguments.whole, arguments.out + first);
}

}  // namespace bertfast::cuda
