// The standard normal distribution: its density, and its share below u, Phi(u) = (1 + erf(u / sqrt(2))) / 2.
#pragma once

#include "core/math/normal.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

struct Normal {
    Floats below, density;
};

// From the tail, so that `below` is exact to rounding and negative tails don't cancel.
static inline Normal normal(Floats u) {
    const Floats a = u < 0.0f ? -u : u;
    const Floats e = exponential(u * u * -0.5f);
    const Floats tail = e * normal_tail_ratio(1.0f / (1.0f + a * 0.25f));
    return {u > 0.0f ? 1.0f - tail : tail, e * 0.398942280f};
}

}  // namespace bertfast::cpu::BERTFAST_ISA
