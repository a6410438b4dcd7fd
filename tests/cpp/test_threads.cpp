// Each CPU kernel writes the same bytes on one thread and on four. Under ThreadSanitizer the same calls show that no
// two threads touch the same memory.
#include "kernel_calls.h"
#include "sampler_harness.h"
#include "threads.h"

using namespace bertfast;

namespace {

template <typename T, typename Check>
void kernels(const Check& check) {
    KernelCalls<Check> calls(7, check);
    calls.template rows<T>(700, 99);
    calls.template embedding<T>(700, 99, 500, 64);
    calls.template attention<T>({1, 0, 129, 10, 60}, {9, 11, 130, 60, 50}, 3, 17);
    calls.template mlm_loss<T>(700, 136, 131, 6);
}

template <typename Check>
void sampler(const Check& check) {
    constexpr int64_t COUNT = 700;
    std::mt19937 random(8);
    const SamplerText text(random, 40);
    for (const Masking masking : {Masking::token, Masking::whole_word, Masking::span}) {
        SamplerOptions options = SamplerText::options();
        options.masking = masking;
        options.max_len = 64;
        options.mask_millionths = 150000;
        const Corpus corpus = text.corpus(options, false);
        for (const bool packed : {true, false}) {
            check([&] {
                SamplerBuffers to(COUNT);
                BERTFAST_DISPATCH(
                    plan(corpus, options, 5, COUNT, to.examples.data(), to.cu_seqlens.data(), to.cu_masked.data()));
                to.allocate(options, packed);
                BERTFAST_DISPATCH(sample(corpus, options, 5, COUNT, to.examples.data(), to.batch));
                return Written() << to.examples << to.cu_seqlens << to.cu_masked << to.numbers << to.weights;
            });
        }
    }
}

}  // namespace

int main() {
    const auto check = [](const auto& call) { same_on_any_threads(call); };
    kernels<float>(check);
    kernels<bfloat16>(check);
    KernelCalls calls(9, check);
    calls.adam({50'000, 3, 0, 70'001, 1}, true);
    calls.adam({200'000}, false);
    sampler(check);
}
