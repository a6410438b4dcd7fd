// The CUDA sampler's threads, stepped on the host, write the same bytes as the CPU's sampler.
#include "sampler_harness.h"

using namespace bertfast;

int main() {
    std::mt19937 random(5);
    const SamplerText text(random, 40);
    SamplerOptions options = SamplerText::options();
    options.short_below = uint64_t{1} << 30;
    options.mask_below = 3435973837;
    options.random_below = 3865470566;

    int compared = 0;
    for (const Objective objective : {Objective::nsp, Objective::sop, Objective::none}) {
        for (const int max_len : {5, 13, 64, 300}) {
            for (int choice = 0; choice < 24; ++choice) {
                const int bits = choice % 8;
                options.objective = objective;
                options.max_len = max_len;
                options.any_negative = bits & 1;
                options.fill = bits & 2;
                options.drop = bits & 4;
                options.masking = static_cast<Masking>(choice / 8);
                if (options.drop && (options.fill || objective == Objective::none)) continue;
                for (const int64_t rate : {0, 150000, 1000000}) {
                    options.mask_millionths = rate;
                    options.seed = random() | uint64_t{random()} << 32;
                    const uint64_t first = compared % 2 ? (uint64_t{1} << 33) - 7 : random() % 1000;
                    const int64_t count = compared % 5 ? 1 + random() % 50 : compared % 3 * 300;
                    compare_samplers(text, options, first, count, compared % 3 ? 32 : 96, compared % 2);
                    ++compared;
                }
            }
        }
    }
    CHECK(compared > 300);
}
