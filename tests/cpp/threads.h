// A call on one thread and on several gives the same bytes.
#pragma once

#include "check.h"
#include "cpu/simd/parallel.h"

namespace bertfast {

// `call` returns Written.
template <typename Call>
void same_on_any_threads(const Call& call) {
    cpu::set_threads(1);
    const auto one = call();
    cpu::set_threads(4);
    const auto four = call();
    CHECK(one.bytes == four.bytes);
}

}  // namespace bertfast
