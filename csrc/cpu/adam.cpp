#include "cpu/kernels.h"
#include "cpu/simd/parallel.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

// The compiler vectorizes the first loop only if it doesn't also round to bfloat16.
void step(const AdamFactors& factors, const AdamTensor& tensor, int64_t begin, int64_t end) {
    float* __restrict const parameter = tensor.parameter;
    const float* __restrict const gradient = tensor.gradient;
    float* __restrict const exp_avg = tensor.exp_avg;
    float* __restrict const exp_avg_sq = tensor.exp_avg_sq;
    for (int64_t i = begin; i < end; ++i) {
        adam_element(factors, gradient[i], parameter[i], exp_avg[i], exp_avg_sq[i]);
    }
    if (tensor.copy == nullptr) return;
    for (int64_t i = begin; i < end; i += LANES) {
        store_upto(tensor.copy + i, load_upto(parameter + i, end - i), end - i);
    }
}

}  // namespace

void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule) {
    if (*rule.refused != 0) return;
    const AdamFactors factors = adam_factors(rule);
    int64_t chunks = 0, elements = 0;
    for (int64_t i = 0; i < count; ++i) {
        chunks += adam_chunks(tensors[i].size);
        elements += tensors[i].size;
    }
    parallel_for(chunks, 1 + (chunks << 16) / (elements + 1), [&](int64_t first, int64_t last) {
        for (int64_t chunk = first; chunk < last; ++chunk) {
            adam_chunk(tensors, chunk, [&](const AdamTensor& tensor, int64_t begin, int64_t end) {
                step(factors, tensor, begin, end);
            });
        }
    });
}

}  // namespace bertfast::cpu::BERTFAST_ISA
