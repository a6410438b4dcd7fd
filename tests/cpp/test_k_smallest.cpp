// choose_smallest equals sorting, also for keys that random numbers hardly ever produce: equal, extreme, clustered.
#define BERTFAST_ISA portable
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/k_smallest.h"

static void compare(const std::vector<uint32_t>& key) {
    const int64_t count = static_cast<int64_t>(key.size());
    std::vector<int32_t> sorted(key.size()), chosen(key.size() + 1);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) { return key[a] < key[b]; });
    for (int64_t k = 1; k <= count; ++k) {
        bertfast::cpu::portable::choose_smallest(key.data(), count, k, chosen.data());
        std::vector<int32_t> expected(sorted.begin(), sorted.begin() + k);
        std::sort(expected.begin(), expected.end());
        CHECK(std::equal(expected.begin(), expected.end(), chosen.begin()));
    }
}

int main() {
    std::mt19937 random(1);
    const uint32_t most = 0xFFFFFFFF;
    for (const uint32_t spread : {most, 1u << 20, 100u, 7u, 2u, 1u}) {
        for (const size_t count : {1, 2, 3, 17, 64, 300}) {
            for (const uint32_t least : {uint32_t{0}, most - (spread - 1)}) {
                std::vector<uint32_t> key(count);
                for (uint32_t& each : key) each = least + (spread == most ? random() : random() % spread);
                compare(key);
                key[count / 2] = most;
                key[count / 3] = 0;
                compare(key);
            }
        }
    }
    // Each key is twice the one before.
    std::vector<uint32_t> doubling;
    for (int bit = 0; bit < 32; ++bit) doubling.insert(doubling.end(), 3, uint32_t{1} << bit);
    compare(doubling);
}
