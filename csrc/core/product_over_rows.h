// A product that sums over the rows of both factors, left^T right, as a weight's gradient does: its arguments.
#pragma once

#include <cstdint>

#include "core/math/bfloat16.h"

namespace bertfast {

template <typename T>
struct ProductOverRows {
    const T* left;   // (rows, left_columns)
    const T* right;  // (rows, right_columns)
    int64_t rows, left_columns, right_columns;
    float* to;  // (left_columns, right_columns)
    bool add;   // to what `to` holds
};

}  // namespace bertfast
