// Dropout without a stored mask: whether an element is kept is a draw keyed by its row's key, its column and the
// site, so that the backward pass, another device or a resumed run finds the same answer again.
#pragma once

#include "core/bfloat16.h"
#include "core/philox.h"

namespace bertfast {

struct Dropout {
    uint64_t seed;
    uint32_t place;
    uint32_t last_kept;  // a word is kept up to this one: round((1 - p) 2^32) - 1
    float scale;         // 1 / (1 - p)
};

// 0 <= p <= 1 - 2^-32, so that the threshold is at least 1.
BERTFAST_HD Dropout make_dropout(double p, uint64_t seed, uint32_t place) {
    const uint64_t threshold = static_cast<uint64_t>((1.0 - p) * 4294967296.0 + 0.5);
    return {seed, place, static_cast<uint32_t>(threshold - 1), static_cast<float>(1.0 / (1.0 - p))};
}

// The words that decide about columns 4 slot .. 4 slot + 3 of the row with this key.
BERTFAST_HD Philox dropout_words(const Dropout& dropout, uint64_t row_key, uint32_t slot) {
    return draw(dropout.seed, STREAM_DROPOUT, dropout.place, row_key, slot);
}

BERTFAST_HD float drop(const Dropout& dropout, uint32_t word, float value) {
    return word <= dropout.last_kept ? value * dropout.scale : 0.0f;
}

}  // namespace bertfast
