#include <algorithm>
#include <memory>
#include <stdexcept>

#include "core/sampling/masking.h"
#include "cpu/k_smallest.h"
#include "cpu/kernels.h"
#include "cpu/simd/parallel.h"
#include "cpu/simd/philox_lanes.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

// Fewer are not worth a thread: these take about 10 us.
constexpr int64_t MIN_EXAMPLES_PER_THREAD = 32;

// `permute` (core/sampling/permutation.h) in every lane, each in its own epoch. A lane that has reached a number below
// `count` waits for the others.
Longs permute_lanes(uint64_t seed, Longs epoch, Longs i, uint64_t count) {
    const int bits = feistel_bits(count), left_bits = bits / 2, right_bits = bits - left_bits;
    const uint64_t left_mask = (uint64_t{1} << left_bits) - 1, right_mask = (uint64_t{1} << right_bits) - 1;
    Longs arrived = {};
    for (bool walking = true; walking;) {
        Longs left = i >> right_bits, right = i & right_mask;
        for (uint32_t round = 0; round < FEISTEL_ROUNDS; ++round) {
            const Longs word = draw_lanes(seed, STREAM_SHUFFLE, round, epoch, right).word[0];
            const Longs mixed = left ^ (word & (round % 2 ? right_mask : left_mask));
            left = right;
            right = mixed;
        }
        i = (i & arrived) | ((left << right_bits | right) & ~arrived);
        arrived = (Longs)(i < count);
        walking = false;
        for (int lane = 0; lane < LONG_LANES; ++lane) walking |= !arrived[lane];
    }
    return i;
}

// Draws LONG_LANES examples from g on, and stores the first `count`.
void make_examples(const Corpus& corpus, const SamplerOptions& options, uint64_t g, int64_t count, Example* examples) {
    Longs index, epoch, place;
    for (int lane = 0; lane < LONG_LANES; ++lane) {
        index[lane] = g + lane;
        epoch[lane] = (g + lane) / corpus.num_anchors;
        place[lane] = (g + lane) % corpus.num_anchors;
    }
    const Longs anchors = permute_lanes(options.seed, epoch, place, corpus.num_anchors);
    const PhiloxLanes other = draw_lanes(options.seed, STREAM_PAIR, 0, index, Longs{});
    const PhiloxLanes choices = draw_lanes(options.seed, STREAM_PAIR, 0, index, Longs{} + 1);
    for (int lane = 0; lane < count; ++lane) {
        examples[lane] = make_example(corpus, options, g + lane, static_cast<int64_t>(anchors[lane]),
                                      one_lane(other, lane), one_lane(choices, lane));
    }
}

// Chooses one example's predictions. Its buffers fit any example, so that a thread needs one object.
class Masker {
  public:
    Masker(const Corpus& corpus, const SamplerOptions& options)
        : corpus_(corpus),
          options_(options),
          capacity_(options.max_len + LONG_LANES),
          words_(new uint32_t[4 * capacity_]),
          chosen_(new int32_t[capacity_]),
          order_(masks_words(options) ? new uint64_t[capacity_] : nullptr),
          starts_(masks_words(options) ? new int32_t[capacity_] : nullptr),
          decider_(masks_words(options) ? new int32_t[capacity_] : nullptr) {}

    // Chooses the candidates to predict and returns their number.
    int64_t choose(uint64_t g, const Example& example) {
        const int64_t candidates = num_candidates(example);
        draw_candidates(g, example, candidates);
        const int64_t k = mask_count(options_, length(example), candidates);
        if (masks_words(options_)) return choose_words(g, example, candidates, k);
        choose_smallest(words_.get(), candidates, k, chosen_.get());
        return k;
    }
    // The chosen candidates, ascending, and the draw of each. The candidates of a span share the action of its first.
    int32_t chosen(int64_t i) const { return chosen_[i]; }
    Philox drawn(int64_t candidate) const {
        const uint32_t* const word = words_.get() + candidate;
        return {{word[0], word[capacity_], word[2 * capacity_], word[3 * capacity_]}};
    }

  private:
    void draw_candidates(uint64_t g, const Example& example, int64_t candidates) {
        uint32_t* const words = words_.get();
        Longs candidate;
        for (int lane = 0; lane < LONG_LANES; ++lane) candidate[lane] = lane;
        const Longs index = Longs{} + g, a_len = Longs{} + static_cast<uint64_t>(example.a_len);
        for (int64_t i = 0; i < candidates; i += LONG_LANES, candidate += LONG_LANES) {
            // position_of, in every lane: a true comparison is -1.
            const Longs position = candidate + 1 - (Longs)(candidate >= a_len);
            store_words(draw_lanes(options_.seed, STREAM_MASK, 0, index, position), words + i, capacity_);
        }
    }

    // Words, or spans of them, in the order of their first candidate's (key, candidate), while at most k candidates
    // are predicted.
    int64_t choose_words(uint64_t g, const Example& example, int64_t candidates, int64_t k) {
        struct Later {
            bool operator()(uint64_t a, uint64_t b) const { return a > b; }
        };
        const uint32_t* const key = words_.get();
        uint64_t *const begin = order_.get(), *end = begin;
        for (int64_t c = 0; c < candidates; ++c) {
            decider_[c] = NOT_PREDICTED;
            starts_[c] = begins_word(corpus_, options_, example, c);
            if (starts_[c]) *end++ = static_cast<uint64_t>(key[c]) << 32 | c;
        }
        std::make_heap(begin, end, Later());
        int64_t count = 0;
        while (count < k && end > begin) {
            std::pop_heap(begin, end, Later());
            const int64_t first = static_cast<uint32_t>(*--end);
            count += predict_words(options_, g, example, first, k - count, starts_.get(), decider_.get());
        }
        uint32_t* const action = words_.get() + capacity_;
        int64_t i = 0;
        for (int64_t c = 0; c < candidates; ++c) {
            if (decider_[c] == NOT_PREDICTED) continue;
            action[c] = action[decider_[c]];
            chosen_[i++] = static_cast<int32_t>(c);
        }
        return count;
    }

    const Corpus& corpus_;
    const SamplerOptions& options_;
    const int64_t capacity_;
    std::unique_ptr<uint32_t[]> words_;  // word w of candidate c at w * capacity + c
    std::unique_ptr<int32_t[]> chosen_;
    std::unique_ptr<uint64_t[]> order_;
    std::unique_ptr<int32_t[]> starts_, decider_;
};

template <typename T>
void fill(T* to, int64_t count, T value) {
    for (int64_t i = 0; i < count; ++i) to[i] = value;
}

void count_up(int64_t* to, int64_t count, int64_t first) {
    for (int64_t i = 0; i < count; ++i) to[i] = first + i;
}

void copy_tokens(const Corpus& corpus, int64_t from, int64_t count, int64_t* to) {
    if (corpus.token_bytes == 2) {
        const uint16_t* const tokens = static_cast<const uint16_t*>(corpus.tokens) + from;
        for (int64_t i = 0; i < count; ++i) to[i] = tokens[i];
    } else {
        const uint32_t* const tokens = static_cast<const uint32_t*>(corpus.tokens) + from;
        for (int64_t i = 0; i < count; ++i) to[i] = tokens[i];
    }
}

void write_tokens(const Corpus& corpus, const SamplerOptions& options, uint64_t g, const Example& example,
                  const Batch& batch, const Row& row) {
    const int64_t tokens = length(example), a_end = example.a_len + 2, padding = row.width - tokens;
    int64_t* const ids = batch.input_ids + row.token;
    ids[0] = options.cls;
    copy_tokens(corpus, example.a_begin, example.a_len, ids + 1);
    ids[a_end - 1] = options.sep;
    if (example.b_len > 0) {
        copy_tokens(corpus, example.b_begin, example.b_len, ids + a_end);
        ids[tokens - 1] = options.sep;
    }
    fill<int64_t>(ids + tokens, padding, options.pad);

    int64_t* const types = batch.token_type_ids + row.token;
    fill<int64_t>(types, a_end, 0);
    fill<int64_t>(types + a_end, tokens - a_end, 1);
    fill<int64_t>(types + tokens, padding, 0);

    if (batch.position_ids) {
        count_up(batch.position_ids + row.token, tokens, 0);
        count_up(batch.row_keys + row.token, tokens, static_cast<int64_t>(g * options.max_len));
    }
    if (batch.attention_mask) {
        fill<int64_t>(batch.attention_mask + row.token, tokens, 1);
        fill<int64_t>(batch.attention_mask + row.token + tokens, padding, 0);
    }
}

void write_predictions(const SamplerOptions& options, const Example& example, const Masker& masker, int64_t count,
                       const Batch& batch, const Row& row) {
    int64_t* const ids = batch.input_ids + row.token;
    int64_t* const positions = batch.masked_positions + row.prediction;
    int64_t* const labels = batch.labels + row.prediction;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t candidate = masker.chosen(i), position = position_of(example, candidate);
        positions[i] = row.position_base + position;
        labels[i] = ids[position];
        ids[position] = masked_token(options, static_cast<int32_t>(ids[position]), masker.drawn(candidate));
    }
    fill<int64_t>(positions + count, row.predictions - count, 0);
    fill<int64_t>(labels + count, row.predictions - count, 0);
    if (batch.mlm_weights) {
        fill(batch.mlm_weights + row.prediction, count, 1.0f);
        fill(batch.mlm_weights + row.prediction + count, row.predictions - count, 0.0f);
    }
}

}  // namespace

// On one thread: every step waits for this, and on busy cores other threads would take longer to start than this takes.
void plan(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int64_t count, Example* examples,
          int32_t* cu_seqlens, int32_t* cu_masked) {
    Masker masker(corpus, options);
    for (int64_t i = 0; i < count; i += LONG_LANES) {
        make_examples(corpus, options, first + i, std::min<int64_t>(LONG_LANES, count - i), examples + i);
    }
    for (int64_t i = 0; i < count; ++i) {
        const int64_t tokens = length(examples[i]);
        cu_seqlens[i + 1] = static_cast<int32_t>(tokens);
        cu_masked[i + 1] =
            static_cast<int32_t>(masks_words(options) ? masker.choose(first + i, examples[i])
                                                      : mask_count(options, tokens, num_candidates(examples[i])));
    }
    cu_seqlens[0] = cu_masked[0] = 0;
    for (int64_t i = 0; i < count; ++i) {
        cu_seqlens[i + 1] += cu_seqlens[i];
        cu_masked[i + 1] += cu_masked[i];
    }
}

void sample(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int64_t count, const Example* examples,
            const Batch& batch) {
    parallel_for(count, MIN_EXAMPLES_PER_THREAD, [&](int64_t begin, int64_t end) {
        Masker masker(corpus, options);
        for (int64_t i = begin; i < end; ++i) {
            const Row row = row_of(batch, i);
            write_tokens(corpus, options, first + i, examples[i], batch, row);
            const int64_t predictions = masker.choose(first + i, examples[i]);
            if (batch.cu_masked && predictions != row.predictions) {
                throw std::invalid_argument("cu_masked is not these examples' plan");
            }
            write_predictions(options, examples[i], masker, predictions, batch, row);
            if (batch.next_sentence_label) batch.next_sentence_label[i] = examples[i].not_next;
        }
    });
}

}  // namespace bertfast::cpu::BERTFAST_ISA
