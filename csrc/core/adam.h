// Adam over many tensors at once: its arguments on host and device, and the update of one element.
#pragma once

#include <cmath>

#include "core/math/bfloat16.h"

namespace bertfast {

struct AdamTensor {
    float* parameter;
    const float* gradient;
    float *exp_avg, *exp_avg_sq;
    bfloat16* copy;  // the parameter in bfloat16; null: none
    int64_t size;
};

// Shared by all tensors of a call. The pointers are read on the device that runs the kernel.
struct AdamRule {
    const float* count;    // of steps, including this one
    const float* rate;     // learning rate
    const float* factor;   // scales the gradients
    const float* refused;  // where it is not 0, nothing is written
    double beta1, beta2, eps;
};

// The rule's factors in float32, computed once and used for every element.
struct AdamFactors {
    float gradient, exp_avg, beta2, exp_avg_sq, correction, eps, step;
};

BERTFAST_HD AdamFactors adam_factors(const AdamRule& rule) {
    const double count = *rule.count;
    return {*rule.factor,
            static_cast<float>(1 - rule.beta1),
            static_cast<float>(rule.beta2),
            static_cast<float>(1 - rule.beta2),
            static_cast<float>(sqrt(1 - pow(rule.beta2, count))),
            static_cast<float>(rule.eps),
            static_cast<float>(*rule.rate / (1 - pow(rule.beta1, count)))};
}

BERTFAST_HD void adam_element(const AdamFactors& factors, float gradient, float& parameter, float& exp_avg,
                              float& exp_avg_sq) {
    gradient *= factors.gradient;
    exp_avg += factors.exp_avg * (gradient - exp_avg);
    exp_avg_sq = factors.beta2 * exp_avg_sq + factors.exp_avg_sq * gradient * gradient;
    parameter -= factors.step * exp_avg / (sqrtf(exp_avg_sq) / factors.correction + factors.eps);
}

// Tensors are updated in chunks of this many elements, numbered across all tensors.
constexpr int64_t ADAM_CHUNK = 4096;

BERTFAST_HD int64_t adam_chunks(int64_t size) {
    return (size + ADAM_CHUNK - 1) / ADAM_CHUNK;
}

// Calls body(tensor, first element, end) for chunk number `chunk`.
template <typename Body>
BERTFAST_HD void adam_chunk(const AdamTensor* tensor, int64_t chunk, const Body& body) {
    for (; chunk >= adam_chunks(tensor->size); ++tensor) chunk -= adam_chunks(tensor->size);
    const int64_t begin = chunk * ADAM_CHUNK, end = begin + ADAM_CHUNK;
    body(*tensor, begin, end < tensor->size ? end : tensor->size);
}

}  // namespace bertfast
