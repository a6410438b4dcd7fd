// A call on one thread and on several gives the same bytes.
#pragma once

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "check.h"

namespace bertfast {

// Without OpenMP there are as many threads as processors.
inline void set_threads(int number) {
#if defined(_OPENMP)
    omp_set_num_threads(number);
#else
    static_cast<void>(number);
#endif
}

// `call` returns Written.
template <typename Call>
void same_on_any_threads(const Call& call) {
    set_threads(1);
    const auto one = call();
    set_threads(4);
    const auto four = call();
    CHECK(one.bytes == four.bytes);
}

}  // namespace bertfast
