// One thread of the dropout kernel: four neighbouring columns, which share a draw.
#pragma once

#include "core/dropout.h"

namespace bertfast::cuda {

template <typename T>
struct DropoutArguments {
    const T* x;               // (rows, columns)
    const int64_t* row_keys;  // (rows,)
    int64_t rows, columns;
    Dropout rule;
    T* out;         // (rows, columns)
    bool in_fours;  // rows hold whole fours at addresses that allow one access for four elements
};

template <typename T>
BERTFAST_HD int64_t slots_per_row(const DropoutArguments<T>& arguments) {
    return (arguments.columns + 3) / 4;
}

template <typename T>
struct alignas(4 * sizeof(T)) Four {
    T element[4];
};

// item in [0, rows * slots_per_row)
template <typename T>
BERTFAST_HD void dropout_thread(const DropoutArguments<T>& arguments, int64_t item) {
    const int64_t slots = slots_per_row(arguments), row = item / slots, slot = item % slots;
    const Philox words =
        dropout_words(arguments.rule, static_cast<uint64_t>(arguments.row_keys[row]), static_cast<uint32_t>(slot));
    const int64_t first = row * arguments.columns + 4 * slot;
    if (arguments.in_fours) {
        const Four<T> x = *reinterpret_cast<const Four<T>*>(arguments.x + first);
        Four<T> out;
        for (int i = 0; i < 4; ++i) {
            from_float(drop(arguments.rule, words.word[i], to_float(x.element[i])), out.element[i]);
        }
        *reinterpret_cast<Four<T>*>(arguments.out + first) = out;
    } else {
        for (int i = 0; i < 4 && 4 * slot + i < arguments.columns; ++i) {
            from_float(drop(arguments.rule, words.word[i], to_float(arguments.x[first + i])), arguments.out[first + i]);
        }
    }
}

}  // namespace bertfast::cuda
