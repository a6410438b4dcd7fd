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

// e^x for x <= 0. The device uses the hardware's power of two, whose relative error is below 2^-21 + |x| 2^-23: only
// terms far from the maximum, which are small, lose digits.
BERTFAST_HD float fast_exponential(float x) {
#if defined(__CUDA_ARCH__)
    return __expf(x);
#else
    return expf(x);
#endif
}

BERTFAST_HD LogSumExp merge(LogSumExp a, LogSumExp b) {
    const float maximum = a.maximum > b.maximum ? a.maximum : b.maximum;
    return {maximum, a.sum * fast_exponential(a.maximum - maximum) + b.sum * fast_exponential(b.maximum - maximum)};
}

}  // namespace bertfast
