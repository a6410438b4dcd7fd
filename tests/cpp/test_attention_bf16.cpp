// Attention in bfloat16, on each instruction set that the processor has, gives the results of the CPU kernel in
// float32.
#include "attention_case.h"

using namespace bertfast;

namespace {

bool attention(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads, int64_t width) {
    bool good = true;
    for (const bool drops : {false, true}) {
        const AttentionCase<bfloat16> test_case(queries, keys, heads, width, drops);
        BERTFAST_DISPATCH(attention(test_case.shape, test_case.forward));
        BERTFAST_DISPATCH(attention_backward(test_case.shape, test_case.backward));
        good &= test_case.is_good();
    }
    return good;
}

}  // namespace

int main() {
    bool good = true;
    for (int isa = 0; isa <= static_cast<int>(cpu::best_isa()); ++isa) {
        cpu::active_isa() = static_cast<cpu::Isa>(isa);
        bool fine = attention({1}, {1}, 1, 8);
        fine &= attention({45, 33, 64, 12}, {45, 33, 64, 12}, 2, 64);
        fine &= attention({63, 65, 1, 7}, {63, 65, 1, 7}, 3, 33);
        fine &= attention({200}, {200}, 1, 32);
        fine &= attention({8, 70, 1, 0}, {45, 130, 20, 3}, 2, 72);
        std::printf("%s: %s\n", cpu::ISA_NAMES[isa], fine ? "as in float32" : "wrong");
        good &= fine;
    }
    return good ? 0 : 1;
}
