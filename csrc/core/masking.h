// Which tokens are predicted, and what stands in their place.
//
// A *candidate* is a token of a segment: candidate c stands at position c + 1 of the sequence, and one
// further after the first [SEP]. The keys of the candidates decide: the k smallest, with the earlier position
// first among equals.
#pragma once

#include "core/corpus.h"
#include "core/philox.h"
#include "core/sampler_options.h"
#include "core/sentence_pair.h"

namespace bertfast {

BERTFAST_HD int64_t position_of(const Example& example, int64_t candidate) {
    return candidate + (candidate < example.a_len ? 1 : 2);
}

BERTFAST_HD int32_t candidate_token(const Corpus& corpus, const Example& example, int64_t candidate) {
    return token_at(
        corpus, candidate < example.a_len ? example.a_begin + candidate : example.b_begin + candidate - example.a_len);
}

// k = min(candidates, max(1, round_half_even(length * rate))).
BERTFAST_HD int64_t mask_count(const SamplerOptions& options, int64_t length, int64_t candidates) {
    const int64_t million = 1000000, share = length * options.mask_millionths;
    int64_t k = share / million;
    const int64_t twice = 2 * (share % million);
    if (twice > million || (twice == million && k % 2)) ++k;
    if (k < 1) k = 1;
    return k < candidates ? k : candidates;
}

// The most predictions that an example can have: those of one of max_len tokens.
BERTFAST_HD int64_t max_predictions(const SamplerOptions& options) {
    const int64_t specials = options.objective == Objective::none ? 2 : 3;
    return mask_count(options, options.max_len, options.max_len - specials);
}

BERTFAST_HD Philox mask_draw(const SamplerOptions& options, uint64_t g, int64_t position) {
    return draw(options.seed, STREAM_MASK, 0, g, static_cast<uint32_t>(position));
}

// What stands where `token` is predicted: [MASK], a random token that isn't special, or the token itself.
BERTFAST_HD int32_t masked_token(const SamplerOptions& options, int32_t token, const Philox& drawn) {
    if (drawn.word[1] < options.mask_below) return options.mask;
    if (drawn.word[1] >= options.random_below) return token;
    int32_t id = static_cast<int32_t>(bounded(word64(drawn, 2), options.vocab_size - options.num_specials));
    for (int i = 0; i < options.num_specials; ++i) id += id >= options.specials[i];
    return id;
}

// Whole words: whether a word begins at this candidate. A segment's first token begins one, whatever it is.
BERTFAST_HD bool begins_word(const Corpus& corpus, const Example& example, int64_t candidate) {
    return candidate == 0 || candidate == example.a_len ||
           !corpus.continuation[candidate_token(corpus, example, candidate)];
}

}  // namespace bertfast
