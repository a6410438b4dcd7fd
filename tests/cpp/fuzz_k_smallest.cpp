// choose_smallest equals sorting, for any keys.
#define BERTFAST_ISA portable
#include <numeric>
#include <vector>

#include "check.h"
#include "cpu/k_smallest.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    bertfast::FuzzInput input(data, size);
    const int64_t count = input.between(1, 300), k = input.between(1, count);
    const int spread = static_cast<int>(input.between(0, 31));
    std::vector<uint32_t> key(count);
    for (uint32_t& each : key) each = input() >> spread;
    std::vector<int32_t> sorted(count), chosen(count + 1);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) { return key[a] < key[b]; });
    std::sort(sorted.begin(), sorted.begin() + k);
    bertfast::cpu::portable::choose_smallest(key.data(), count, k, chosen.data());
    CHECK(std::equal(sorted.begin(), sorted.begin() + k, chosen.begin()));
    return 0;
}
