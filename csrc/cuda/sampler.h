// The sampler on a CUDA device. The contract is that of cpu/sampler.h; the first example's number is read on the
// device, so that a captured graph serves every step, and `stream` is a cudaStream_t of the current device.
#pragma once

#include "core/sampling/batch.h"
#include "core/sampling/corpus.h"
#include "core/sampling/sampler_options.h"
#include "core/sampling/sentence_pair.h"

namespace bertfast::cuda {

void plan(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count, Example* examples,
          int32_t* cu_seqlens, int32_t* cu_masked, void* stream);

// Raises std::runtime_error where max_len takes more shared memory than the device has.
void sample(const Corpus& corpus, const SamplerOptions& options, const int64_t* first, int64_t count,
            const Example* examples, const Batch& batch, void* stream);

}  // namespace bertfast::cuda
