// Attention in AMX's tiles, emulated, gives what the CPU kernel gives in float32. Compiled for AVX512_BF16
// (CMakeLists.txt), and run where the processor has that.
#define BERTFAST_ISA emulated
#define __AMX_BF16__ 1
#include "amx_emulation.h"
#include "check.h"
#include "cpu/attention.h"
#include "cpu/attention_pairs.h"
#include "cpu/dispatch.h"
#include "stepping.h"

using namespace bertfast;

namespace {

bool attention(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads, int64_t width) {
    std::mt19937 random(static_cast<uint32_t>(width));
    const PackedSequences sequences(queries, keys);
    const int64_t tokens = sequences.cu_queries.back(), query_size = sequences.query_size(heads, width);
    const int64_t key_size = sequences.key_value_size(heads, width);
    const auto query = random_floats<bfloat16>(query_size, random), grad = random_floats<bfloat16>(query_size, random);
    const auto key_value = random_floats<bfloat16>(key_size, random);
    const auto row_keys = random_ints(tokens, random, int64_t{1} << 60);
    const AttentionShape shape = sequences.shape(heads, width, row_keys);
    const auto wide_query = floats_of(query), wide_key_value = floats_of(key_value), wide_grad = floats_of(grad);
    std::vector<float> out(query_size), log_sum_exp(tokens * heads), grad_query(query_size), grad_key_value(key_size);
    BERTFAST_DISPATCH(attention(
        shape, AttentionForward<float>{wide_query.data(), wide_key_value.data(), out.data(), log_sum_exp.data()}));
    BERTFAST_DISPATCH(attention_backward(
        shape, AttentionBackward<float>{wide_grad.data(), wide_query.data(), wide_key_value.data(), log_sum_exp.data(),
                                        grad_query.data(), grad_key_value.data()}));

    auto our_out = poisoned<bfloat16>(query_size), our_grad_query = poisoned<bfloat16>(query_size);
    auto our_grad_key_value = poisoned<bfloat16>(key_size);
    auto our_log_sum_exp = poisoned<float>(tokens * heads);
    const int64_t items = shape.batch * shape.heads;
    cpu::emulated::forward_pairs(shape, {query.data(), key_value.data(), our_out.data(), our_log_sum_exp.data()}, 0,
                                 items);
    cpu::emulated::backward_pairs(shape,
                                  {grad.data(), query.data(), key_value.data(), log_sum_exp.data(),
                                   our_grad_query.data(), our_grad_key_value.data()},
                                  0, items);
    CHECK(!amx_emulation::configured);
    const double tolerance = 4e-3;  // probabilities are rounded as factors
    return near(our_log_sum_exp, log_sum_exp, 1e-6, "log_sum_exp") && near(our_out, out, tolerance, "attention") &&
           near(our_grad_query, grad_query, tolerance, "gradient of the queries") &&
           near(our_grad_key_value, grad_key_value, tolerance, "gradient of keys and values");
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
