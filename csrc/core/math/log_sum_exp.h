// log(sum_i e^(x_i)) of a part of a row, and how two parts become one: no exponent is ever positive, so nothing
// overflows.
#pragma once

#include <cfloat>
#include <cmath>

#include "core/host_device.h"

namespace bertfast {

// The part's greatest element and sum_i e^(x_i - maximum). A part without elements is {-FLT_MAX, 0}: finite, so that
// the difference of two maxima is never infinity minus infinity.
struct LogSumExp {
    float maximum, sum;
};

BERTFAST_HD LogSumExp empty_log_sum_exp() {
    return {-FLT_MAX, 0.0f};
}

// On the device with the hardware's power of two, whose error, for the x of at most 0 that come here, is below 2^-21 +
// |x| 2^-23 of the result: what is far from the maximum, and so small, is what loses digits.
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
