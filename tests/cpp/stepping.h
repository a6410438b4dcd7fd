// Shared by the tests of CUDA kernels: phases stepped on the host, memory that starts as NaN, and comparisons.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "kernel_inputs.h"

namespace bertfast {

// Runs each thread once, in an order that changes from phase to phase. So a kernel fails if a thread needs another's
// result of the same phase, or overwrites what another still reads.
template <typename Phase>
void every_thread(int threads, const Phase& phase) {
    static std::mt19937 random;
    std::vector<int> order(threads);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (const int thread : order) phase(thread);
}

// Memory that must be written before it is read: all bits set, which is NaN in both types.
template <typename T>
std::vector<T> poisoned(int64_t count) {
    std::vector<T> values(count);
    if (count > 0) memset(static_cast<void*>(values.data()), 0xFF, count * sizeof(T));
    return values;
}

// A block whose threads take turns in each phase (cuda/device_block.cuh). A copy to shared memory happens at once or,
// if `late`, only when the thread waits for it.
template <typename Registers>
struct HostBlock {
    int threads;
    bool late = false;
    std::vector<Registers> registers = poisoned<Registers>(threads);
    std::vector<std::vector<std::function<void()>>> copies = std::vector<std::vector<std::function<void()>>>(threads);

    template <typename Phase>
    void each(const Phase& phase) {
        every_thread(threads, [&](int thread) { phase(thread, registers[thread]); });
    }

    template <typename T>
    void copy(int thread, bool is_there, const T* from, T* to) {
        copies[thread].push_back([=] { *to = is_there ? *from : T{}; });
        if (!late) wait(thread);
    }

    void wait(int thread) {
        for (const auto& each : copies[thread]) each();
        copies[thread].clear();
    }

    void publish(int) {}
};

// Whether all elements are within `tolerance` times the greatest one, plus one rounding to T, of the expected ones.
// With `zeros`, zeros must also be in the same places.
template <typename T>
bool near(const std::vector<T>& got, const std::vector<float>& expected, double tolerance, const char* what,
          bool zeros = false) {
    const double rounding = sizeof(T) == 2 ? 0x1p-8 : 0.0;
    double greatest = 0;
    for (const float each : expected) greatest = std::max<double>(greatest, std::fabs(each));
    if (got.size() != expected.size()) {
        std::printf("%s: %zu elements, not %zu\n", what, got.size(), expected.size());
        return false;
    }
    for (size_t i = 0; i < got.size(); ++i) {
        const double value = to_float(got[i]), wanted = expected[i];
        const bool good = std::fabs(value - wanted) <= tolerance * greatest + rounding * std::fabs(wanted);
        if (!good || (zeros && (wanted == 0) != (value == 0))) {
            std::printf("%s[%zu]: %.9g, not %.9g\n", what, i, value, wanted);
            return false;
        }
    }
    return true;
}

}  // namespace bertfast
