// The standard normal distribution, at one number or at a vector of them.
#pragma once

#include "core/host_device.h"

namespace bertfast {

// For a >= 0, 1 - Phi(a) is e^(-a^2/2) R(a), where R changes slowly. With t = 1 / (1 + a/4), R is t p(t), where p is
// the minimax polynomial of degree 9, whose relative error is at most 3.4e-8. In float32 the tail's relative error
// stays below 5e-7 until the density underflows.
template <typename F>
BERTFAST_HD F normal_tail_ratio(F t) {
    F p = t * 0x1.441c54p-6f - 0x1.4b469p-4f;
    p = p * t + 0x1.8791b2p-4f;
    p = p * t - 0x1.03d5f8p-5f;
    p = p * t + 0x1.04e9b8p-4f;
    p = p * t + 0x1.e31fa8p-5f;
    p = p * t + 0x1.4e3f14p-4f;
    p = p * t + 0x1.7ed694p-4f;
    p = p * t + 0x1.98853ap-4f;
    p = p * t + 0x1.988452p-4f;
    return p * t;
}

// The share below u, Phi(u) = (1 + erf(u / sqrt(2))) / 2, and the density phi(u).
template <typename F>
struct Normal {
    F below, density;
};

// `e` is e^(-u^2 / 2) and `t` is 1 / (1 + |u| / 4), which host and device compute in different ways. Phi comes from the
// tail, so that it is exact to rounding and small tails don't cancel.
template <typename F>
BERTFAST_HD Normal<F> normal_from(F u, F e, F t) {
    const F tail = e * normal_tail_ratio(t);
    return {u > 0.0f ? 1.0f - tail : tail, e * 0.398942280f};
}

}  // namespace bertfast
