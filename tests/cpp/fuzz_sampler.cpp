// With any options and any small text, the CPU's batches on each instruction set equal those of the CUDA kernels'
// threads.
#include "fuzz_input.h"
#include "sampler_harness.h"

using namespace bertfast;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    FuzzInput input(data, size);
    choose_isa(input);
    SamplerOptions options = SamplerText::options();
    options.objective = static_cast<Objective>(input.between(0, 2));
    options.masking = static_cast<Masking>(input.between(0, 2));
    options.max_len = static_cast<int32_t>(input.between(5, input.between(0, 3) ? 64 : 600));
    options.any_negative = input.between(0, 1);
    options.fill = input.between(0, 1);
    options.drop = input.between(0, 1) && !options.fill && options.objective != Objective::none;
    options.mask_millionths = input.between(0, 1000000);
    options.short_below = static_cast<uint64_t>(input.between(0, int64_t{1} << 32));
    options.random_below = static_cast<uint64_t>(input.between(0, int64_t{1} << 32));
    options.mask_below = static_cast<uint64_t>(input.between(0, static_cast<int64_t>(options.random_below)));
    options.num_specials = static_cast<int32_t>(input.between(0, SamplerOptions::MAX_SPECIALS));
    for (int i = 0; i < options.num_specials; ++i) {
        const int32_t low = i ? options.specials[i - 1] + 1 : 0;
        options.specials[i] = static_cast<int32_t>(input.between(low, VOCABULARY - options.num_specials + i));
    }
    options.seed = input.wide();
    const uint64_t first = input.wide() >> input.between(0, 63);
    const int64_t count = input.between(0, 40);
    const int threads = static_cast<int>(32 * input.between(1, 3));
    const bool wide = input.between(0, 1);
    const SamplerText text(input, static_cast<uint32_t>(input.between(2, 12)));
    if (options.objective != Objective::none && text.pairs() == 0) return 0;
    compare_samplers(text, options, first, count, threads, wide);
    return 0;
}
