// LayerNorm and its gradient by element, for one number or a vector of them.
#pragma once

#include "core/host_device.h"

namespace bertfast {

// A row's mean, and 1 / sqrt(variance + eps).
struct Moments {
    float mean, reciprocal_deviation;
};

template <typename F>
BERTFAST_HD F normalized(F x, const Moments& moments) {
    return (x - moments.mean) * moments.reciprocal_deviation;
}

// With n the normalised row and g = grad weight, the row's gradient is
// reciprocal_deviation (g - mean(g) - n mean(g n)).
struct RowGradient {
    float mean, slope;  // mean(g) and mean(g n)
    float reciprocal_deviation;
};

template <typename F>
BERTFAST_HD F gradient_at(const RowGradient& row, F g, F n) {
    return (g - row.mean - n * row.slope) * row.reciprocal_deviation;
}

}  // namespace bertfast
