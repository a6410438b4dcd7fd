// Rows of any width in whole vectors.
#pragma once

#include "cpu/simd/scratch.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

// A vector of a row with `left` elements left. Lanes beyond the row's end load as 0 and are not stored.
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

// Calls body(c, left) for each vector of a row, where `left` is at most LANES. It is the constant LANES for all but the
// last, so that load_upto and store_upto check nothing.
template <typename Body>
static inline void over_vectors(int64_t columns, const Body& body) {
    int64_t c = 0;
    for (; c + LANES <= columns; c += LANES) body(c, LANES);
    if (c < columns) body(c, columns - c);
}

// Copies `columns` numbers to `to` and fills its last cache line with zeros; all zeros if `from` is null.
static inline const float* whole_row(const float* from, int64_t columns, float* to) {
    memset(to, 0, round_up(columns, LINE) * sizeof(float));
    if (from) memcpy(to, from, columns * sizeof(float));
    return to;
}

static inline void add_to(float* to, Floats value) {
    store(to, load(to) + value);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
