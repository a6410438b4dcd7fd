// The standard normal distribution at each lane's u.
#pragma once

#include "core/math/normal.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

static inline Normal<Floats> normal(Floats u) {
    const Floats a = u < 0.0f ? -u : u;
    return normal_from(u, exponential(u * u * -0.5f), 1.0f / (1.0f + a * 0.25f));
}

}  // namespace bertfast::cpu::BERTFAST_ISA
