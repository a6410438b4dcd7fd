// Attention in emulated AMX tiles gives the results of the CPU kernel in float32. Compiled for AVX512_BF16
// (CMakeLists.txt), and skipped where the processor lacks it.
#define BERTFAST_ISA emulated
#define __AMX_BF16__ 1
#include "amx_emulation.h"
#include "attention_case.h"
#include "check.h"
#include "cpu/attention_bf16.h"

using namespace bertfast;

namespace {

bool attention(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads, int64_t width) {
    const AttentionCase<bfloat16> test_case(queries, keys, heads, width, true);
    const int64_t items = test_case.shape.batch * heads;
    cpu::emulated::forward_bf16(test_case.shape, test_case.forward, 0, items);
    cpu::emulated::backward_bf16(test_case.shape, test_case.backward, 0, items);
    return test_case.is_good() && !amx_emulation::configured;
}

}  // namespace

int main() {
    if (!__builtin_cpu_supports("avx512bf16")) return 77;
    CHECK(attention({1}, {1}, 1, 8));
    CHECK(attention({45, 33, 64, 12}, {45, 33, 64, 12}, 2, 64));
    CHECK(attention({63, 65, 1, 7}, {63, 65, 1, 7}, 3, 33));
    CHECK(attention({200}, {200}, 1, 32));
    CHECK(attention({8, 70, 1, 0}, {45, 130, 20, 3}, 2, 72));
}
