// How examples are drawn: bertfast.config.SamplerConfig in integers. A probability is a threshold in 1/2^32, compared
// with a 32-bit word. It is 64 bits wide because a probability of 1 is 2^32.
#pragma once

#include "core/host_device.h"

namespace bertfast {

enum class Objective : int32_t { nsp, sop, none };

// What is masked together: one token, all pieces of a word, or a span of words.
enum class Masking : int32_t { token, whole_word, span };

struct SamplerOptions {
    uint64_t seed;
    Objective objective;
    int32_t max_len;
    bool any_negative;  // a wrong next sentence may come from the same document
    bool drop;          // only pairs that fit are anchors, and a negative that doesn't fit is redrawn
    bool fill;          // a segment holds several sentences
    Masking masking;
    uint64_t short_below;  // a filled pair is shorter than max_len if its word is below this
    int64_t mask_millionths;
    uint64_t mask_below;    // [MASK] replaces the token if its action is below this
    uint64_t random_below;  // else a random token does, if its action is below this
    int32_t vocab_size;
    int32_t pad, cls, sep, mask;
    static constexpr int MAX_SPECIALS = 5;
    int32_t num_specials;
    int32_t specials[MAX_SPECIALS];  // ascending
};

}  // namespace bertfast
