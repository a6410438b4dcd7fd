// Each CPU kernel, at any size and on each instruction set, writes the same bytes on any number of threads and, under
// AddressSanitizer, accesses nothing beyond its tensors.
#include "fuzz_input.h"
#include "kernel_calls.h"
#include "threads.h"

using namespace bertfast;

namespace {

template <typename T, typename Check>
void call_one(FuzzInput& input, const Check& check) {
    KernelCalls<Check> calls(input(), check);
    const int64_t kernel = input.between(0, 4), rows = input.between(0, 70), columns = input.between(0, 300);
    if (kernel == 0) {
        calls.template rows<T>(rows, columns);
    } else if (kernel == 1) {
        calls.template embedding<T>(rows, columns, input.between(1, 200), input.between(1, 70));
    } else if (kernel == 2) {
        std::vector<int32_t> queries(input.between(0, 4)), keys(queries.size());
        for (size_t i = 0; i < queries.size(); ++i) {
            queries[i] = static_cast<int32_t>(input.between(0, 110));
            keys[i] = static_cast<int32_t>(input.between(queries[i] > 0, 110));
        }
        calls.template attention<T>(queries, keys, input.between(0, 3), input.between(1, 70));
    } else if (kernel == 4) {
        std::vector<int64_t> sizes(input.between(0, 5));
        for (int64_t& size : sizes) size = input.between(0, 9000);
        calls.adam(sizes, sizeof(T) == 2);
    } else {
        const int64_t wide = 8 * input.between(1, 40);
        calls.template mlm_loss<T>(rows, wide, input.between(1, wide), input.between(1, 5));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    FuzzInput input(data, size);
    choose_isa(input);
    const auto check = [](const auto& call) { same_on_any_threads(call); };
    input.between(0, 1) ? call_one<float>(input, check) : call_one<bfloat16>(input, check);
    return 0;
}
