// Numbers from a fuzzer's bytes; zeros once they are used up.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/simd/dispatch.h"

namespace bertfast {

class FuzzInput {
  public:
    FuzzInput(const uint8_t* data, size_t size) : next_(data), end_(data + size) {}

    // 32 bits.
    uint32_t operator()() {
        uint32_t value = 0;
        for (int byte = 0; byte < 4 && next_ != end_; ++byte) value |= uint32_t{*next_++} << 8 * byte;
        return value;
    }
    uint64_t wide() { return (*this)() | uint64_t{(*this)()} << 32; }
    // A number in [low, high], from as few bytes as suffice.
    int64_t between(int64_t low, int64_t high) {
        const uint64_t values = static_cast<uint64_t>(high - low) + 1;
        uint64_t value = 0;
        for (uint64_t most = 1; most < values && next_ != end_; most <<= 8) value = value << 8 | *next_++;
        return low + static_cast<int64_t>(value % values);
    }

  private:
    const uint8_t* next_;
    const uint8_t* end_;
};

// Selects one of the processor's instruction sets.
inline void choose_isa(FuzzInput& input) {
    cpu::active_isa() = static_cast<cpu::Isa>(input.between(0, static_cast<int>(cpu::best_isa())));
}

}  // namespace bertfast
