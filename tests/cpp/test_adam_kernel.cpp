// The threads of Adam's CUDA kernel, stepped on the host, give the CPU kernel's results for tensors of any size,
// aligned or not, in one table or several.
#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "cuda/adam_kernel.cuh"
#include "stepping.h"

using namespace bertfast;

namespace {

bool adam(const std::vector<int64_t>& sizes, bool copied) {
    std::mt19937 random(static_cast<uint32_t>(sizes.size()));
    AdamState expected(sizes, random);
    AdamState ours = expected;
    expected.take([](auto... arguments) { BERTFAST_DISPATCH(adam(arguments...)); }, copied);
    ours.take(
        [](const AdamTensor* tensors, int64_t count, const AdamRule& rule) {
            const AdamFactors factors = adam_factors(rule);
            cuda::in_tables(tensors, count, [&](const cuda::AdamTable& table, int64_t chunks) {
                for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                    every_thread(cuda::ADAM_THREADS,
                                 [&](int thread) { cuda::adam_thread(factors, table, chunk, thread); });
                }
            });
        },
        copied);
    return near(ours.parameters, expected.parameters, 1e-6, "parameters") &
           near(ours.exp_avgs, expected.exp_avgs, 1e-6, "exp_avgs") &
           near(ours.exp_avg_sqs, expected.exp_avg_sqs, 1e-6, "exp_avg_sqs") &
           near(ours.copies, floats_of(expected.copies), 1e-6, "copies");
}

}  // namespace

int main() {
    bool good = true;
    for (const bool copied : {true, false}) {
        good &= adam({}, copied) & adam({0, 0}, copied) & adam({5}, copied);
        good &= adam({4096, 8, 9000, 1, 0, 13, 4097, 4}, copied);
        good &= adam(std::vector<int64_t>(2 * cuda::ADAM_TENSORS + 1, 7), copied);
    }
    return good ? 0 : 1;
}
