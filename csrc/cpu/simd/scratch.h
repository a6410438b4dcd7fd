// A thread's working memory: floats, from the start of a cache line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace bertfast::cpu::BERTFAST_ISA {

constexpr int64_t LINE = 16;  // floats in a cache line

static inline int64_t round_up(int64_t count, int64_t to) {
    return (count + to - 1) / to * to;
}

class Scratch {
  public:
    explicit Scratch(int64_t floats)
        : data_(static_cast<float*>(std::aligned_alloc(64, round_up(floats + LINE, LINE) * sizeof(float)))),
          next_(data_) {
        if (!data_) throw std::bad_alloc();
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    // Takes the next `floats`, a multiple of LINE.
    float* take(int64_t floats) {
        float* const taken = next_;
        next_ += floats;
        return taken;
    }

  private:
    float* data_;
    float* next_;
};

}  // namespace bertfast::cpu::BERTFAST_ISA
