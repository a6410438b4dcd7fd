// A product of two matrices: its arguments.
#pragma once

#include <cstdint>

#include "core/math/bfloat16.h"

namespace bertfast {

template <typename T>
struct Factor {
    const T* data;
    bool transposed;  // stored with its columns as rows
};

template <typename T, typename To>
struct MatrixProduct {
    Factor<T> left;   // (rows, depth)
    Factor<T> right;  // (depth, columns)
    int64_t rows, depth, columns;
    To* to;    // (rows, columns)
    bool add;  // to what `to` holds
};

}  // namespace bertfast
