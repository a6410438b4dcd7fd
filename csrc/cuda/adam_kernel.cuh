// The threads of Adam's kernel. A block takes a chunk of a tensor, and each thread every ADAM_THREADS-th group of four
// elements.
#pragma once

#include "core/adam.h"
#include "cuda/vectorized_access.cuh"

namespace bertfast::cuda {

constexpr int ADAM_THREADS = 256;

// As many tensors as a kernel's 4 kB of arguments can describe.
constexpr int ADAM_TENSORS = 80;

struct AdamTable {
    AdamTensor tensors[ADAM_TENSORS];
};

// Calls launch(table, chunks) for tables of as many tensors as fit. Skips tables without elements.
template <typename Launch>
void in_tables(const AdamTensor* tensors, int64_t count, const Launch& launch) {
    for (int64_t begin = 0; begin < count; begin += ADAM_TENSORS) {
        AdamTable table = {};
        int64_t chunks = 0;
        for (int64_t i = begin; i < count && i < begin + ADAM_TENSORS; ++i) {
            table.tensors[i - begin] = tensors[i];
            chunks += adam_chunks(tensors[i].size);
        }
        if (chunks > 0) launch(table, chunks);
    }
}

BERTFAST_HD void adam_thread(const AdamFactors& factors, const AdamTable& table, int64_t chunk, int thread) {
    adam_chunk(table.tensors, chunk, [&](const AdamTensor& tensor, int64_t begin, int64_t end) {
        const bool aligned = in_fours(4, tensor.parameter, tensor.gradient, tensor.exp_avg, tensor.exp_avg_sq) &&
                             in_fours(4, tensor.copy);
        for (int64_t i = begin + 4 * thread; i < end; i += 4 * ADAM_THREADS) {
            const int64_t left = end - i;
            const bool whole = aligned && left >= 4;
            float parameter[4], gradient[4], exp_avg[4], exp_avg_sq[4];
            load_four(tensor.parameter + i, left, whole, parameter);
            load_four(tensor.gradient + i, left, whole, gradient);
            load_four(tensor.exp_avg + i, left, whole, exp_avg);
            load_four(tensor.exp_avg_sq + i, left, whole, exp_avg_sq);
            for (int j = 0; j < 4; ++j) adam_element(factors, gradient[j], parameter[j], exp_avg[j], exp_avg_sq[j]);
            store_four(parameter, left, whole, tensor.parameter + i);
            store_four(exp_avg, left, whole, tensor.exp_avg + i);
            store_four(exp_avg_sq, left, whole, tensor.exp_avg_sq + i);
            if (tensor.copy != nullptr) store_four(parameter, left, whole, tensor.copy + i);
        }
    });
}

}  // namespace bertfast::cuda
