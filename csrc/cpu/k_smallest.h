// The k smallest of many keys, without sorting them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bertfast::cpu::BERTFAST_ISA {

// Writes the indices of the k smallest (key, index) to `chosen`, ascending; 1 <= k <= count, and `chosen` has room for
// count + 1. Searches for the bound below which k keys lie. Interpolating between the known counts takes about three
// passes for uniform keys; for others, bisection ends the search.
static inline void choose_smallest(const uint32_t* key, int64_t count, int64_t k, int32_t* chosen) {
    uint64_t low = 0, high = uint64_t{1} << 32;
    int64_t below_low = 0, below_high = count;
    for (int pass = 0; below_high != k && high - low > 1; ++pass) {
        const uint64_t wanted = static_cast<uint64_t>(2 * (k - below_low) + 1);
        const uint64_t between = static_cast<uint64_t>(2 * (below_high - below_low) + 1);
        const uint64_t step = pass < 10 ? (high - low) * wanted / between : (high - low) / 2;
        const uint64_t bound = low + std::max<uint64_t>(1, std::min(step, high - low - 1));
        const uint32_t last = static_cast<uint32_t>(bound - 1);
        int32_t below = 0;
        for (int64_t i = 0; i < count; ++i) below += key[i] <= last;
        (below < k ? low : high) = bound;
        (below < k ? below_low : below_high) = below;
    }
    // Where keys are equal, the search ends at low + 1 == high, and the first of the keys equal to `low` are chosen.
    const uint32_t last = static_cast<uint32_t>(high - 1);
    int64_t ties = below_high == k ? count : k - below_low;
    int64_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        const bool tie = key[i] == last;
        chosen[found] = static_cast<int32_t>(i);
        found += key[i] < last || (tie && ties > 0);
        ties -= tie;
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA
