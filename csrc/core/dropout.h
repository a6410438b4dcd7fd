// Dropout without a stored mask: whether an element is kept is a draw keyed by its row's key, its column and the
// site, so that the backward pass, another device and a resumed run all draw the same.
//
// A model draws several times per element, so draws must be cheap: sixteen bits each, eight from one Philox call of
// seven rounds.
#pragma once

#include "core/math/bfloat16.h"
#include "core/math/philox.h"

namespace bertfast {

constexpr int DROPOUT_ROUNDS = 7;

struct Dropout {
    uint64_t seed;
    uint32_t place;
    uint16_t last_kept;  // an element is kept if its draw is at most this: max(1, round((1 - p) 2^16)) - 1
    float scale;         // 1 / (1 - p)
    bool enabled;        // p > 0
};

// p in [0, 1).
BERTFAST_HD Dropout make_dropout(double p, uint64_t seed, uint32_t place) {
    const uint32_t threshold = static_cast<uint32_t>((1.0 - p) * 65536.0 + 0.5);
    const uint16_t last_kept = static_cast<uint16_t>(threshold > 1 ? threshold - 1 : 0);
    return {seed, place, last_kept, static_cast<float>(1.0 / (1.0 - p)), p > 0};
}

// Which of four neighbouring columns, the first a multiple of 4, are kept in the row with this key: a bit for each.
// Column c's draw has slot c / 8. Half c % 2 (0 is the lower) of its word c % 8 / 2 decides.
BERTFAST_HD uint32_t kept_four(const Dropout& dropout, uint64_t row_key, uint32_t column) {
    const Philox draws = draw<DROPOUT_ROUNDS>(dropout.seed, STREAM_DROPOUT, dropout.place, row_key, column / 8);
    const bool later = column % 8 != 0;
    const uint32_t word[2] = {later ? draws.word[2] : draws.word[0], later ? draws.word[3] : draws.word[1]};
    uint32_t kept = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t half = i % 2 ? word[i / 2] >> 16 : word[i / 2] & 0xFFFF;
        kept |= static_cast<uint32_t>(half <= dropout.last_kept) << i;
    }
    return kept;
}

}  // namespace bertfast
