#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/simd/parallel.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

constexpr int64_t BLOCK = 512;  // columns at a time: their factors stay in the L1 cache

// A selection, not a product, so that a dropped infinity is 0, not NaN.
inline Floats drop(Floats x, Floats scale) {
    return scale == 0.0f ? Floats{} : x * scale;
}

template <typename T>
void dropout_rows(const T* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule, T* out) {
    const int64_t grain = 1 + 16384 / (columns + 1);
    parallel_for(rows, grain, [=](int64_t begin, int64_t end) {
        alignas(64) float scales[BLOCK];
        for (int64_t row = begin; row < end; ++row) {
            for (int64_t first = 0; first < columns; first += BLOCK) {
                const int64_t count = columns - first < BLOCK ? columns - first : BLOCK;
                dropout_factors(rule, static_cast<uint64_t>(row_keys[row]), first, count, scales);
                const T* from = x + row * columns + first;
                T* to = out + row * columns + first;
                int64_t c = 0;
                for (; c + LANES <= count; c += LANES) store(to + c, drop(load(from + c), load(scales + c)));
                if (c < count) store(to + c, drop(load(from + c, count - c, 0.0f), load(scales + c)), count - c);
            }
        }
    });
}

}  // namespace

void dropout(const float* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule, float* out) {
    dropout_rows(x, row_keys, rows, columns, rule, out);
}

void dropout(const bfloat16* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule,
             bfloat16* out) {
    dropout_rows(x, row_keys, rows, columns, rule, out);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
