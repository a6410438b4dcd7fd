// Threads: OpenMP, whose run-time library torch has already loaded, so that both share one pool and torch's number of
// threads holds here too. Without OpenMP, plain threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#if defined(_OPENMP)
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace bertfast::cpu {

// Calls body(begin, end) over disjoint ranges that cover [0, count); ranges hold at least `grain` items.
// Which thread gets which range never changes a result: body must write to its own range alone.
template <typename Body>
static inline void parallel_for(int64_t count, int64_t grain, const Body& body) {
    if (count <= 0) return;
#if defined(_OPENMP)
    const int64_t most = omp_in_parallel() ? 1 : omp_get_max_threads();
#else
    const int64_t most = std::max<int64_t>(1, std::thread::hardware_concurrency());
#endif
    const int64_t threads = std::max<int64_t>(1, std::min(most, count / std::max<int64_t>(1, grain)));
    if (threads == 1) {
        body(int64_t{0}, count);
        return;
    }
    const auto bound = [=](int64_t thread) { return count * thread / threads; };
#if defined(_OPENMP)
    std::exception_ptr failed;  // an exception must not leave a parallel region by itself
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t thread = 0; thread < threads; ++thread) {
        try {
            body(bound(thread), bound(thread + 1));
        } catch (...) {
#pragma omp critical
            failed = std::current_exception();
        }
    }
    if (failed) std::rethrow_exception(failed);
#else
    std::vector<std::thread> pool;
    for (int64_t thread = 1; thread < threads; ++thread) {
        pool.emplace_back([&, thread] { body(bound(thread), bound(thread + 1)); });
    }
    body(int64_t{0}, bound(1));
    for (std::thread& worker : pool) worker.join();
#endif
}

}  // namespace bertfast::cpu
