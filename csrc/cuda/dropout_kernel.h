// One thread of the dropout kernel: four neighbouring columns, which share a draw.
#pragma once

#include "core/dropout.h"
#include "cuda/four.h"

namespace bertfast::cuda {

// Four columns of the row with this key, from column 4 slot on, in place.
BERTFAST_HD void drop_four(const Dropout& rule, int64_t row_key, int64_t slot, float (&x)[4]) {
    const Philox words = dropout_words(rule, static_cast<uint64_t>(row_key), static_cast<uint32_t>(slot));
    for (int i = 0; i < 4; ++i) x[i] = drop(rule, words.word[i], x[i]);
}

template <typename T>
struct DropoutArguments {
    const T* x;               // (rows, columns)
    const int64_t* row_keys;  // (rows,)
    int64_t rows, columns;
    Dropout rule;
    T* out;      // (rows, columns)
    bool whole;  // see in_fours
};

// item in [0, rows * fours(columns))
template <typename T>
BERTFAST_HD void dropout_thread(const DropoutArguments<T>& arguments, int64_t item) {
    const int64_t slots = fours(arguments.columns), row = item / slots, slot = item % slots;
    const int64_t first = row * arguments.columns + 4 * slot, left = arguments.columns - 4 * slot;
    float x[4];
    load_four(arguments.x + first, left, arguments.whole, x);
    drop_four(arguments.rule, arguments.row_keys[row], slot, x);
    store_four(x, left, arguments.whole, arguments.out + first);
}

}  // namespace bertfast::cuda
