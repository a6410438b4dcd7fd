// Rows of any width in whole vectors.
#pragma once

#include "cpu/simd/scratch.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

// A vector of a row that has `left` more elements: beyond its end the lanes are 0, and nothing is stored.
template <typename T>
static inline Floats load_upto(const T* from, int64_t left) {
    return left >= LANES ? load(from) : load(from, left, 0.0f);
}

template <typename T>
static inline void store_upto(T* to, Floats value, int64_t left) {
    if (left >= LANES) {
        store(to, value);
    } else {
        store(to, value, left);
    }
}

// `columns` numbers in `room`, whole lines long, with zeros behind; all zeros, if there are none to copy.
static inline const float* whole_row(const float* from, int64_t columns, float* room) {
    memset(room, 0, round_up(columns, LINE) * sizeof(float));
    if (from) memcpy(room, from, columns * sizeof(float));
    return room;
}

static inline void add_to(float* to, Floats value) {
    store(to, load(to) + value);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
