// The threads that add up column sums of slices of rows. A block takes SUM_COLUMNS columns, in phases with a barrier
// after each. The order of the sums depends only on the number of slices.
#pragma once

#include "core/host_device.h"

namespace bertfast::cuda {

constexpr int SUM_COLUMNS = 32, SUM_GROUPS = 32, SUM_THREADS = SUM_COLUMNS * SUM_GROUPS;
constexpr int SUM_PHASES = 2;

// The first row of a slice. Slices differ by one row at most.
BERTFAST_HD int64_t slice_row(int64_t rows, int64_t slices, int64_t slice) {
    return rows * slice / slices;
}

struct ColumnSums {
    const float* partial;  // slice s and column c at s * stride + c
    int64_t slices, stride, columns;
    float* out;  // (columns,)
};

struct ColumnSumsShared {
    float sum[SUM_GROUPS][SUM_COLUMNS];
};

BERTFAST_HD void column_sums_phase(int phase, const ColumnSums& sums, int64_t block, int thread,
                                   ColumnSumsShared& shared) {
    const int group = thread / SUM_COLUMNS, lane = thread % SUM_COLUMNS;
    const int64_t column = block * SUM_COLUMNS + lane;
    if (column >= sums.columns || (phase == 1 && group > 0)) return;
    float sum = 0.0f;
    if (phase == 0) {
        for (int64_t slice = group; slice < sums.slices; slice += SUM_GROUPS) {
            sum += sums.partial[slice * sums.stride + column];
        }
        shared.sum[group][lane] = sum;
    } else {
        for (int each = 0; each < SUM_GROUPS; ++each) sum += shared.sum[each][lane];
        sums.out[column] = sum;
    }
}

}  // namespace bertfast::cuda
