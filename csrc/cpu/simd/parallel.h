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
#include <atomic>
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

// Calls body(begin, end) over disjoint ranges that cover [0, count); ranges hold at least `grain` items. A thread that
// is done with one takes the next, so that none waits long for another whose core does other work, too. Which thread
// gets which range never changes a result: body must write only to its own range.
template <typename Body>
static inline void parallel_for(int64_t count, int64_t grain, const Body& body) {
    if (count <= 0) return;
    constexpr int64_t RANGES = 4;  // of a thread
    const int64_t most = std::max<int64_t>(1, count / std::max<int64_t>(1, grain));
    const int64_t threads = std::min(most_threads(), most), ranges = std::min(RANGES * threads, most);
    if (threads == 1) {
        body(int64_t{0}, count);
        return;
    }
    std::mutex failing;
    std::exception_ptr failed;  // an exception must not leave its thread
    const auto run = [&](int64_t range) {
        try {
            body(count * range / ranges, count * (range + 1) / ranges);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(failing);
            failed = std::current_exception();
        }
    };
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t range = 0; range < ranges; ++range) run(range);
#else
    std::atomic<int64_t> next{0};
    const auto run_all = [&] {
        for (int64_t range = next++; range < ranges; range = next++) run(range);
    };
    std::vector<std::thread> pool;
    try {
        for (int64_t thread = 1; thread < threads; ++thread) pool.emplace_back(run_all);
        run_all();
    } catch (...) {  // no thread could be started
        const std::lock_guard<std::mutex> lock(failing);
        failed = std::current_exception();
    }
    for (std::thread& worker : pool) worker.join();
#endif
    if (failed) std::rethrow_exception(failed);
}

}  // namespace bertfast::cpu
