#include "cpu/kernels.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

template <typename T>
void sum_rows(const T* x, int64_t rows, int64_t columns, float* to) {
    ColumnSums sums(rows, columns);
    sums.over_chunks([&](int64_t begin, int64_t end, float* partial) {
        for (const T* row = x + begin * columns; row != x + end * columns; row += columns) {
            over_vectors(columns, [&](int64_t c, int64_t left) { add_to(partial + c, load_upto(row + c, left)); });
        }
    });
    sums.total(0, columns, to);
}

}  // namespace

void column_sums(const float* x, int64_t rows, int64_t columns, float* sums) {
    sum_rows(x, rows, columns, sums);
}

void column_sums(const bfloat16* x, int64_t rows, int64_t columns, float* sums) {
    sum_rows(x, rows, columns, sums);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
