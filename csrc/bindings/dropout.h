// The numbers of a dropout, checked.
#pragma once

#include "core/dropout.h"

namespace bertfast::bindings {

// Raises ValueError unless 0 <= p < 1 and the place fits the counter's 24 bits.
Dropout checked_dropout(double p, int64_t seed, int64_t place);

}  // namespace bertfast::bindings
