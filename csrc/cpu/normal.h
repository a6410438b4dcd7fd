// The standard normal distribution: its density, and its share below u, Phi(u) = (1 + erf(u / sqrt(2))) / 2.
#pragma once

#include "cpu/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

struct Normal {
    Floats below, density;
};

// The tail beyond a = |u| is e^(-a^2/2) R(a), where R changes slowly: with t = 1 / (1 + a/4) it is t p(t), p the
// polynomial of degree 9 with the least greatest relative error, 3.4e-8. In float32 the tail's relative error stays
// below 5e-7 down to the density's underflow, so that `below` is exact to rounding and negative tails don't cancel.
static inline Normal normal(Floats u) {
    const Floats a = u < 0.0f ? -u : u;
    const Floats e = exponential(u * u * -0.5f);
    const Floats t = 1.0f / (1.0f + a * 0.25f);
    Floats p = t * 0x1.441c54p-6f - 0x1.4b469p-4f;
    p = p * t + 0x1.8791b2p-4f;
    p = p * t - 0x1.03d5f8p-5f;
    p = p * t + 0x1.04e9b8p-4f;
    p = p * t + 0x1.e31fa8p-5f;
    p = p * t + 0x1.4e3f14p-4f;
    p = p * t + 0x1.7ed694p-4f;
    p = p * t + 0x1.98853ap-4f;
    p = p * t + 0x1.988452p-4f;
    const Floats tail = e * (p * t);
    return {u > 0.0f ? 1.0f - tail : tail, e * 0.398942280f};
}

}  // namespace bertfast::cpu::BERTFAST_ISA
