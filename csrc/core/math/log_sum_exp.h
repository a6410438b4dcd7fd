// log(sum_i e^(x_i)) of a part of a row, and how two parts merge into one. No exponent is ever positive, so nothing
// overflows.
#pragma once

#include <cfloat>
#include <cmath>

#include "core/host_device.h"

namespace bertfast {

// A part's greatest element and sum_i e^(x_i - maximum). An empty part is {-FLT_MAX, 0}: finite, so that the difference
// of two maxima is never infinity minus infinity.
struct LogSumExp {
    float maximum, sum;
};

BERTFAST_HD LogSumExp empty_log_sum_exp() {
    return {-FLT_MAX, 0.0f};
}

constexpr float LOG2_E = 1.44269504f;

// 2^x for x <= 0. The device uses the hardware's instruction, with a relative error below 2^-22 and 0 for results below
// 2^-126.
BERTFAST_HD float fast_power_of_two(float x) {
#if defined(__CUDA_ARCH__)
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return exp2f(x);
#endif
}

// e^x for x <= 0. Its relative error is below 2^-21 + |x| 2^-23: only terms far from the maximum, which are small, lose
// digits.
BERTFAST_HD float fast_exponential(float x) {
#if defined(__CUDA_ARCH__)
    return fast_power_of_two(x * LOG2_E);
#else
    return expf(x);
#endif
}

// `scale`: of the exponents, if the elements are not scaled yet.
BERTFAST_HD LogSumExp merge(LogSumExp a, LogSumExp b, float scale = 1.0f) {
    const float maximum = a.maximum > b.maximum ? a.maximum : b.maximum;
    return {maximum, a.sum * fast_exponential((a.maximum - maximum) * scale) +
                         b.sum * fast_exponential((b.maximum - maximum) * scale)};
}

}  // namespace bertfast
