// Which tokens are predicted, and what replaces them.
//
// A *candidate* is a token of a segment: candidate c is at position c + 1 of the sequence, or at c + 2 after the first
// [SEP]. Each candidate has a random key. The k smallest keys are predicted, the earlier position first among equals;
// where words are masked whole, words are taken in the order of their first candidates' keys.
#pragma once

#include "core/math/philox.h"
#include "core/sampling/corpus.h"
#include "core/sampling/sampler_options.h"
#include "core/sampling/sentence_pair.h"

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

// The most predictions that an example can have: those of an example of max_len tokens.
BERTFAST_HD int64_t max_predictions(const SamplerOptions& options) {
    const int64_t specials = options.objective == Objective::none ? 2 : 3;
    return mask_count(options, options.max_len, options.max_len - specials);
}

BERTFAST_HD Philox mask_draw(const SamplerOptions& options, uint64_t g, int64_t position) {
    return draw(options.seed, STREAM_MASK, 0, g, static_cast<uint32_t>(position));
}

// The replacement of a predicted `token`: [MASK], a random token that isn't special, or the token itself. Word 1 of
// `drawn` is the action.
BERTFAST_HD int32_t masked_token(const SamplerOptions& options, int32_t token, const Philox& drawn) {
    if (drawn.word[1] < options.mask_below) return options.mask;
    if (drawn.word[1] >= options.random_below) return token;
    int32_t id = static_cast<int32_t>(bounded(word64(drawn, 2), options.vocab_size - options.num_specials));
    for (int i = 0; i < options.num_specials; ++i) id += id >= options.specials[i];
    return id;
}

// --- Whole words and spans ---

BERTFAST_HD bool masks_words(const SamplerOptions& options) {
    return options.masking != Masking::token;
}

// Whether a word begins at this candidate. A segment's first token always begins one, and so does a token outside the
// vocabulary, which has no entry in the table.
BERTFAST_HD bool begins_word(const Corpus& corpus, const SamplerOptions& options, const Example& example,
                             int64_t candidate) {
    if (candidate == 0 || candidate == example.a_len) return true;
    const int32_t token = candidate_token(corpus, example, candidate);
    return token < 0 || token >= options.vocab_size || !corpus.continuation[token];
}

// The length in words of a span that begins at `position`: n in [1, 10] with probability proportional to 0.8^(n - 1),
// as in Joshi et al., "SpanBERT" (2020). The bounds are round(2^32 (1 - 0.8^n) / (1 - 0.8^10)) for n = 1 ... 9.
BERTFAST_HD int64_t span_words(const SamplerOptions& options, uint64_t g, int64_t position) {
    constexpr uint32_t BOUNDS[9] = {962321997,  1732179594, 2348065672, 2840774535, 3234941624,
                                    3550275296, 3802542234, 4004355784, 4165806624};
    const uint32_t word = draw(options.seed, STREAM_MASK, 1, g, static_cast<uint32_t>(position)).word[0];
    int64_t words = 1;
    for (int i = 0; i < 9; ++i) words += word >= BOUNDS[i];
    return words;
}

constexpr int32_t NOT_PREDICTED = -1;

// Predicts the word, or the span of words, that begins at the candidate `first`: as many whole words as fit into `room`
// predictions, up to the segment's end or a word that is predicted already. By candidate, `starts` is 1 where a word
// begins, and `decider` is the candidate whose action decides what replaces this one, or NOT_PREDICTED. Returns the
// number of candidates predicted.
BERTFAST_HD int64_t predict_words(const SamplerOptions& options, uint64_t g, const Example& example, int64_t first,
                                  int64_t room, const int32_t* starts, int32_t* decider) {
    const bool span = options.masking == Masking::span;
    const int64_t segment_end = first < example.a_len ? example.a_len : num_candidates(example);
    int64_t end = first;
    for (int64_t words = span ? span_words(options, g, position_of(example, first)) : 1;
         words > 0 && end < segment_end && decider[end] == NOT_PREDICTED; --words) {
        int64_t next = end + 1;
        while (next < segment_end && !starts[next]) ++next;
        if (next - first > room) break;
        end = next;
    }
    for (int64_t c = first; c < end; ++c) decider[c] = static_cast<int32_t>(span ? first : c);
    return end - first;
}

}  // namespace bertfast
