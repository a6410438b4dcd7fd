// From an example's number to its segments.
#pragma once

#include "core/math/philox.h"
#include "core/sampling/corpus.h"
#include "core/sampling/permutation.h"
#include "core/sampling/sampler_options.h"

namespace bertfast {

// An example: `[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]` where b_len is 0. A segment is one range of the
// corpus's tokens. Five int64 fields, so that a table of examples is an int64 tensor of five columns.
struct Example {
    int64_t a_begin, a_len;
    int64_t b_begin, b_len;
    int64_t not_next;  // next_sentence_label: 0 true next (in order), 1 not
};

BERTFAST_HD int64_t num_candidates(const Example& example) {
    return example.a_len + example.b_len;
}
BERTFAST_HD int64_t length(const Example& example) {
    return num_candidates(example) + (example.b_len > 0 ? 3 : 2);
}

// A number in [0, n) from 32 random bits.
BERTFAST_HD int64_t bounded32(uint32_t random, int64_t n) {
    return static_cast<int64_t>(static_cast<uint64_t>(random) * static_cast<uint64_t>(n) >> 32);
}

// A range of sentences [first, last).
struct Sentences {
    int64_t first, last;
};

// Cuts segments at their ends, the longer one first, until both together hold at most `budget` tokens.
BERTFAST_HD void truncate(Example& example, int64_t budget) {
    if (num_candidates(example) <= budget) return;
    const int64_t half = budget / 2;
    if (example.b_len <= half) {
        example.a_len = budget - example.b_len;
    } else if (example.a_len <= half) {
        example.b_len = budget - example.a_len;
    } else {
        example.a_len = budget - half;
        example.b_len = half;
    }
}

// The sentence that the draw `other` picks as a wrong next one, from a document other than `document` or from any.
BERTFAST_HD int64_t negative_sentence(const Corpus& corpus, const SamplerOptions& options, int64_t document,
                                      const Philox& other) {
    const bool any = options.any_negative;
    int64_t drawn = static_cast<int64_t>(bounded(word64(other, 0), corpus.num_documents - (any ? 0 : 1)));
    if (!any && drawn >= document) ++drawn;
    const int64_t begin = corpus.document_offsets[drawn], end = corpus.document_offsets[drawn + 1];
    return begin + static_cast<int64_t>(bounded(word64(other, 2), end - begin));
}

// Example g from its anchor and its first two draws, which the CPU makes for many examples at a time.
BERTFAST_HD Example make_example(const Corpus& corpus, const SamplerOptions& options, uint64_t g, int64_t anchor,
                                 const Philox& other, const Philox& choices) {
    const bool pairs = options.objective != Objective::none;
    const int64_t item = corpus.anchors ? corpus.anchors[anchor] : anchor;
    const int64_t document = document_of(corpus, item, pairs);
    const int64_t sentence = item + (pairs ? document : 0);
    const int64_t budget = options.max_len - (pairs ? 3 : 2);
    const bool flip = pairs && choices.word[0] >= uint32_t{1} << 31;  // the coin: not the true next

    Sentences a = {sentence, sentence + 1};
    Sentences b = {sentence + 1, sentence + (pairs ? 2 : 1)};
    int64_t b_document = document;
    if (flip && options.objective == Objective::nsp) {
        b.first = negative_sentence(corpus, options, document, other);
        if (options.drop) {
            const int64_t room = budget - tokens_in(corpus, a.first, a.last);
            for (uint32_t t = 0; t < 32 && tokens_in(corpus, b.first, b.first + 1) > room; ++t) {
                b.first = negative_sentence(corpus, options, document, draw(options.seed, STREAM_PAIR, 0, g, 2 + t));
            }
        }
        b.last = b.first + 1;
        if (options.fill) b_document = document_of(corpus, b.first, false);
    }

    if (options.fill) {
        const bool shorter = pairs && choices.word[1] < options.short_below;
        const int64_t target = shorter ? 2 + bounded32(choices.word[2], options.max_len - 4) : budget;
        if (pairs) {
            const int64_t most = 1 + bounded32(choices.word[3], target - 1);
            const int64_t begin = corpus.document_offsets[document];
            while (a.first > begin && tokens_in(corpus, a.first - 1, a.last) <= most) --a.first;
        }
        // B grows forward. A single segment grows instead, into the following documents too.
        Sentences& open = pairs ? b : a;
        const int64_t room = target - (pairs ? tokens_in(corpus, a.first, a.last) : 0);
        const int64_t end = pairs ? corpus.document_offsets[b_document + 1] : corpus.num_sentences;
        while (open.last < end && tokens_in(corpus, open.first, open.last + 1) <= room) ++open.last;
    }

    if (flip && options.objective == Objective::sop) {
        const Sentences first = a;
        a = b;
        b = first;
    }
    Example example = {corpus.sentence_offsets[a.first], tokens_in(corpus, a.first, a.last),
                       corpus.sentence_offsets[b.first], pairs ? tokens_in(corpus, b.first, b.last) : 0, flip};
    truncate(example, budget);
    return example;
}

BERTFAST_HD Example make_example(const Corpus& corpus, const SamplerOptions& options, uint64_t g) {
    const uint64_t epoch = g / corpus.num_anchors;
    const uint64_t anchor = permute(options.seed, epoch, g % corpus.num_anchors, corpus.num_anchors);
    return make_example(corpus, options, g, static_cast<int64_t>(anchor), draw(options.seed, STREAM_PAIR, 0, g, 0),
                        draw(options.seed, STREAM_PAIR, 0, g, 1));
}

}  // namespace bertfast
