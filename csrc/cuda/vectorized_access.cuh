// Loads and stores of four neighbouring columns by one memory access, in rows of any width.
#pragma once

#include <type_traits>

#include "core/math/bfloat16.h"

namespace bertfast::cuda {

template <typename T>
struct alignas(4 * sizeof(T)) Four {
    T element[4];
};

BERTFAST_HD int64_t fours(int64_t columns) {
    return (columns + 3) / 4;
}

// Whether rows of `columns` columns at these addresses consist of whole, aligned fours, which one access can move.
template <typename... T>
BERTFAST_HD bool in_fours(int64_t columns, const T*... first) {
    return columns % 4 == 0 && ((reinterpret_cast<uintptr_t>(first) % sizeof(Four<T>) == 0) && ...);
}

// Calls body(std::true_type) or body(std::false_type). A kernel compiled for one of them has no branch between its
// loads, so it waits for several loads at once.
template <typename Body>
void with_constant(bool value, const Body& body) {
    value ? body(std::true_type()) : body(std::false_type());
}

// Loads the four elements at `from`, in a row with `left` columns left, and 0 beyond its end. `whole`: see in_fours; a
// bool, or std::true_type or std::false_type.
template <typename T, typename Whole>
BERTFAST_HD void load_four(const T* from, int64_t left, Whole whole, float (&to)[4]) {
    if (whole) {
        const Four<T> four = *reinterpret_cast<const Four<T>*>(from);
        for (int i = 0; i < 4; ++i) to[i] = to_float(four.element[i]);
    } else {
        for (int i = 0; i < 4; ++i) to[i] = i < left ? to_float(from[i]) : 0.0f;
    }
}

template <typename T, typename Whole>
BERTFAST_HD void store_four(const float (&from)[4], int64_t left, Whole whole, T* to) {
    if (whole) {
        Four<T> four;
        for (int i = 0; i < 4; ++i) from_float(from[i], four.element[i]);
        *reinterpret_cast<Four<T>*>(to) = four;
    } else {
        for (int i = 0; i < 4 && i < left; ++i) from_float(from[i], to[i]);
    }
}

}  // namespace bertfast::cuda
