// The sampler on the CPU.
#pragma once

#include "core/sampling/batch.h"
#include "core/sampling/corpus.h"
#include "core/sampling/sampler_options.h"
#include "core/sampling/sentence_pair.h"
#include "cpu/simd/isa.h"

// The segments of the examples [first, first + count), and where their tokens and their predictions begin in
// a packed batch (count + 1 numbers each).
BERTFAST_DECLARE(void plan(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int64_t count,
                           Example* examples, int32_t* cu_seqlens, int32_t* cu_masked))

// Fills `batch` with the planned examples. Raises std::invalid_argument where cu_masked is not their plan.
BERTFAST_DECLARE(void sample(const Corpus& corpus, const SamplerOptions& options, uint64_t first, int64_t count,
                             const Example* examples, const Batch& batch))
