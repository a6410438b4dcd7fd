// A small text, the buffers of a batch, and a comparison of the CUDA sampler's threads, stepped on the host, with the
// CPU's sampler.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "cuda/sampler_kernel.cuh"

namespace bertfast {

constexpr int32_t VOCABULARY = 60;

struct SamplerText {
    std::vector<uint16_t> narrow;
    std::vector<uint32_t> wide;
    std::vector<int64_t> sentence_offsets = {0}, document_offsets = {0}, fitting;
    std::vector<uint8_t> continuation;

    // `random()` gives 32 bits. The text includes documents of one sentence, sentences of one token, and sentences
    // longer than most values of max_len.
    template <typename Random>
    SamplerText(Random& random, uint32_t documents) {
        for (int id = 0; id < VOCABULARY; ++id) continuation.push_back(id >= 40);
        std::mt19937 token(random());
        for (uint32_t document = 0; document < documents; ++document) {
            const uint32_t sentences = 1 + random() % 7;
            for (uint32_t sentence = 0; sentence < sentences; ++sentence) {
                const uint32_t tokens = 1 + random() % (sentence == 3 ? 90 : 12);
                for (uint32_t i = 0; i < tokens; ++i) {
                    narrow.push_back(static_cast<uint16_t>(5 + token() % (VOCABULARY - 5)));
                    wide.push_back(narrow.back());
                }
                sentence_offsets.push_back(static_cast<int64_t>(narrow.size()));
            }
            document_offsets.push_back(static_cast<int64_t>(sentence_offsets.size()) - 1);
        }
        for (int64_t pair = 0; pair < pairs(); pair += 3) fitting.push_back(pair);
    }

    // The number of pairs of adjacent sentences in a document.
    int64_t pairs() const { return static_cast<int64_t>(sentence_offsets.size() - document_offsets.size()); }

    // The options that describe this text's vocabulary. The caller sets the others.
    static SamplerOptions options() {
        SamplerOptions options = {};
        options.vocab_size = VOCABULARY;
        options.pad = 0;
        options.cls = 2;
        options.sep = 3;
        options.mask = 4;
        options.num_specials = 5;
        for (int i = 0; i < 5; ++i) options.specials[i] = i;
        return options;
    }

    Corpus corpus(const SamplerOptions& options, bool in_four_bytes) const {
        Corpus corpus = {};
        corpus.tokens = in_four_bytes ? static_cast<const void*>(wide.data()) : narrow.data();
        corpus.token_bytes = in_four_bytes ? 4 : 2;
        corpus.sentence_offsets = sentence_offsets.data();
        corpus.document_offsets = document_offsets.data();
        corpus.num_sentences = static_cast<int64_t>(sentence_offsets.size()) - 1;
        corpus.num_documents = static_cast<int64_t>(document_offsets.size()) - 1;
        corpus.num_anchors = corpus.num_sentences;
        if (options.objective != Objective::none) corpus.num_anchors -= corpus.num_documents;
        if (options.drop) {
            corpus.anchors = fitting.data();
            corpus.num_anchors = static_cast<int64_t>(fitting.size());
        }
        corpus.continuation = masks_words(options) ? continuation.data() : nullptr;
        return corpus;
    }
};

// A batch and its buffers, filled with values that no sampler writes.
struct SamplerBuffers {
    std::vector<Example> examples;
    std::vector<int32_t> cu_seqlens, cu_masked;
    std::vector<int64_t> numbers;
    std::vector<float> weights;
    Batch batch = {};

    explicit SamplerBuffers(int64_t count) : examples(count), cu_seqlens(count + 1, -7), cu_masked(count + 1, -7) {}

    void allocate(const SamplerOptions& options, bool packed) {
        const int64_t count = static_cast<int64_t>(examples.size());
        batch.max_len = options.max_len;
        batch.max_predictions = max_predictions(options);
        const int64_t tokens = packed ? cu_seqlens[count] : count * batch.max_len;
        const int64_t predictions = packed ? cu_masked[count] : count * batch.max_predictions;
        numbers.assign(4 * tokens + 2 * predictions + count, -7);
        weights.assign(predictions, -7.0f);
        int64_t* next = numbers.data();
        const auto take = [&next](int64_t size) { return (next += size) - size; };
        batch.input_ids = take(tokens);
        batch.token_type_ids = take(tokens);
        (packed ? batch.position_ids : batch.attention_mask) = take(tokens);
        if (packed) {
            batch.cu_seqlens = cu_seqlens.data();
            batch.cu_masked = cu_masked.data();
            batch.row_keys = take(tokens);
        } else {
            batch.mlm_weights = weights.data();
        }
        batch.masked_positions = take(predictions);
        batch.labels = take(predictions);
        batch.next_sentence_label = options.objective == Objective::none ? nullptr : take(count);
    }
};

// Steps the kernels of cuda/sampler.cu, a thread at a time.
inline void choose(const Corpus& corpus, const SamplerOptions& options, uint64_t g, const Example& example, int threads,
                   std::vector<int32_t>& memory) {
    memory.assign(cuda::mask_shared_bytes(options) / sizeof(int32_t), -9);
    const cuda::MaskShared shared = cuda::mask_shared(memory.data(), options);
    for (int phase = 0; phase < cuda::CHOOSE_PHASES; ++phase) {
        for (int thread = 0; thread < threads; ++thread) {
            cuda::choose_phase(phase, {corpus, options, g, example, shared, thread, threads});
        }
    }
}

inline void scan(std::vector<int32_t>& values) {
    cuda::ScanShared shared;
    for (int phase = 0; phase < cuda::SCAN_PHASES; ++phase) {
        for (int thread = 0; thread < cuda::SCAN_THREADS; ++thread) {
            cuda::scan_phase(phase, shared, thread, values.data(), static_cast<int64_t>(values.size()) - 1);
        }
    }
}

inline void plan_kernels(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int threads,
                         SamplerBuffers& to) {
    std::vector<int32_t> memory;
    for (size_t i = 0; i < to.examples.size(); ++i) {
        const Example example = to.examples[i] = make_example(corpus, options, first + i);
        to.cu_seqlens[i + 1] = static_cast<int32_t>(length(example));
        to.cu_masked[i + 1] = static_cast<int32_t>(mask_count(options, length(example), num_candidates(example)));
        if (masks_words(options)) {
            choose(corpus, options, first + i, example, threads, memory);
            to.cu_masked[i + 1] = *cuda::mask_shared(memory.data(), options).count;
        }
    }
    scan(to.cu_seqlens);
    scan(to.cu_masked);
}

inline void sample_kernel(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int threads,
                          SamplerBuffers& to) {
    std::vector<int32_t> memory;
    for (size_t i = 0; i < to.examples.size(); ++i) {
        choose(corpus, options, first + i, to.examples[i], threads, memory);
        const cuda::MaskShared shared = cuda::mask_shared(memory.data(), options);
        const Row row = row_of(to.batch, static_cast<int64_t>(i));
        for (int phase = 0; phase < cuda::WRITE_PHASES; ++phase) {
            for (int thread = 0; thread < threads; ++thread) {
                cuda::write_phase(phase, {corpus, options, first + i, to.examples[i], shared, thread, threads},
                                  to.batch, row, static_cast<int64_t>(i));
            }
        }
    }
}

template <typename T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline void compare_samplers(const SamplerText& text, const SamplerOptions& options, uint64_t first, int64_t count,
                             int threads, bool wide) {
    const Corpus corpus = text.corpus(options, wide);
    for (const bool packed : {true, false}) {
        SamplerBuffers kernel(count), cpu(count);
        plan_kernels(corpus, options, first, threads, kernel);
        BERTFAST_DISPATCH(
            plan(corpus, options, first, count, cpu.examples.data(), cpu.cu_seqlens.data(), cpu.cu_masked.data()));
        CHECK(same_bytes(kernel.examples, cpu.examples));
        CHECK(same_bytes(kernel.cu_seqlens, cpu.cu_seqlens));
        CHECK(same_bytes(kernel.cu_masked, cpu.cu_masked));

        kernel.allocate(options, packed);
        cpu.allocate(options, packed);
        sample_kernel(corpus, options, first, threads, kernel);
        BERTFAST_DISPATCH(sample(corpus, options, first, count, cpu.examples.data(), cpu.batch));
        CHECK(same_bytes(kernel.numbers, cpu.numbers));
        if (!packed) CHECK(same_bytes(kernel.weights, cpu.weights));
    }
}

}  // namespace bertfast
