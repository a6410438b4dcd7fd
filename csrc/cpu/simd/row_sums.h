// Sums down the columns of many rows.
#pragma once

#include "cpu/simd/parallel.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

// Sums chunks of rows, then the chunks. Their bounds depend only on the number of rows, so that any number of threads
// gives the same bits.
class ColumnSums {
  public:
    ColumnSums(int64_t rows, int64_t columns)
        : rows_(rows),
          chunk_(rows > 64 * 256 ? (rows + 255) / 256 : 64),
          chunks_((rows + chunk_ - 1) / chunk_),
          stride_(round_up(columns, LINE)),
          sums_(chunks_ * stride_),
          first_(sums_.take(chunks_ * stride_)) {
        memset(first_, 0, chunks_ * stride_ * sizeof(float));
    }

    // Calls body(first row, end, sums) for every chunk. `sums` is the chunk's own row, which begins as zeros.
    template <typename Body>
    void over_chunks(const Body& body) {
        parallel_for(chunks_, 1, [&](int64_t begin, int64_t end) {
            for (int64_t chunk = begin; chunk < end; ++chunk) {
                const int64_t last = (chunk + 1) * chunk_;
                body(chunk * chunk_, last < rows_ ? last : rows_, first_ + chunk * stride_);
            }
        });
    }

    // to[c] = the sum of column first + c over all chunks; `first` is a multiple of LINE.
    void total(int64_t first, int64_t columns, float* to) const {
        for (int64_t c = 0; c < columns; c += LANES) {
            Floats sum = {};
            for (int64_t chunk = 0; chunk < chunks_; ++chunk) sum += load(first_ + chunk * stride_ + first + c);
            store_upto(to + c, sum, columns - c);
        }
    }

  private:
    int64_t rows_, chunk_, chunks_, stride_;
    Scratch sums_;
    float* first_;
};

}  // namespace bertfast::cpu::BERTFAST_ISA
