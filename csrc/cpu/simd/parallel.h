// Threads: OpenMP's, whose run-time library torch has already loaded, so that both share one pool and torch's number of
// threads. Without OpenMP, plain threads, whose number only `set_threads` limits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

#if defined(_OPENMP)
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace bertfast::cpu {

// Sets the most threads that later calls from this thread use.
#if defined(_OPENMP)
static inline void set_threads(int64_t most) {
    omp_set_num_threads(static_cast<int>(most));
}

static inline int64_t most_threads() {
    return omp_in_parallel() ? 1 : omp_get_max_threads();
}
#else
inline thread_local int64_t thread_limit = 0;  // 0: none

static inline void set_threads(int64_t most) {
    thread_limit = most;
}

static inline int64_t most_threads() {
    return thread_limit > 0 ? thread_limit : std::max<int64_t>(1, std::thread::hardware_concurrency());
}
#endif

// Calls body(begin, end) over disjoint ranges that cover [0, count); ranges hold at least `grain` items.
// Which thread gets which range never changes a result: body must write only to its own range.
template <typename Body>
static inline void parallel_for(int64_t count, int64_t grain, const Body& body) {
    if (count <= 0) return;
    const int64_t threads = std::max<int64_t>(1, std::min(most_threads(), count / std::max<int64_t>(1, grain)));
    if (threads == 1) {
        body(int64_t{0}, count);
        return;
    }
    std::mutex failing;
    std::exception_ptr failed;  // an exception must not leave its thread
    const auto run = [&](int64_t thread) {
        try {
            body(count * thread / threads, count * (thread + 1) / threads);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(failing);
            failed = std::current_exception();
        }
    };
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t thread = 0; thread < threads; ++thread) run(thread);
#else
    std::vector<std::thread> pool;
    try {
        for (int64_t thread = 1; thread < threads; ++thread) pool.emplace_back(run, thread);
        run(0);
    } catch (...) {  // no thread could be started
        const std::lock_guard<std::mutex> lock(failing);
        failed = std::current_exception();
    }
    for (std::thread& worker : pool) worker.join();
#endif
    if (failed) std::rethrow_exception(failed);
}

}  // namespace bertfast::cpu
