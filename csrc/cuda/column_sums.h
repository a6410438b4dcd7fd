// Launches the second pass of sums over rows: out[c] = sum_s partial[s * stride + c], s in [0, slices). Without float
// atomics, so that the same call has the same bits.
#pragma once

#include <cstdint>

namespace bertfast::cuda {

void column_sums(const float* partial, int64_t slices, int64_t stride, int64_t columns, float* out, void* stream);

}  // namespace bertfast::cuda
