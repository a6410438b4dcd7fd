// A tokenised corpus in flat arrays: documents of sentences of token ids. No document and no sentence is empty.
#pragma once

#include "core/host_device.h"

namespace bertfast {

struct Corpus {
    const void* tokens;  // uint16 or uint32
    int32_t token_bytes;
    const int64_t* sentence_offsets;  // sentences + 1, in tokens
    const int64_t* document_offsets;  // documents + 1, in sentences
    int64_t num_sentences;
    int64_t num_documents;
    const int64_t* anchors;       // the pairs that may be drawn, or null: all of them
    int64_t num_anchors;          // examples in an epoch
    const uint8_t* continuation;  // by token: 1 where it continues a word
};

BERTFAST_HD int32_t token_at(const Corpus& corpus, int64_t i) {
    return corpus.token_bytes == 2 ? static_cast<const uint16_t*>(corpus.tokens)[i]
                                   : static_cast<int32_t>(static_cast<const uint32_t*>(corpus.tokens)[i]);
}

// Tokens of the sentences [first, last).
BERTFAST_HD int64_t tokens_in(const Corpus& corpus, int64_t first, int64_t last) {
    return corpus.sentence_offsets[last] - corpus.sentence_offsets[first];
}

// The last document that begins at or before `item`. Items are sentences or, with `pairs`, pairs of adjacent
// sentences: then a document has one item fewer than sentences, and a document of one sentence has none.
BERTFAST_HD int64_t document_of(const Corpus& corpus, int64_t item, bool pairs) {
    int64_t low = 0;
    for (int64_t count = corpus.num_documents; count > 1;) {
        const int64_t half = count / 2, middle = low + half;
        low = corpus.document_offsets[middle] - (pairs ? middle : 0) <= item ? middle : low;
        count -= half;
    }
    return low;
}

}  // namespace bertfast
