// The CUDA kernel's threads, stepped on the host, give the CPU kernel's bits.
#include <cstdio>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "cuda/dropout_kernel.cuh"

using namespace bertfast;

namespace {

template <typename T>
bool same(int64_t rows, int64_t columns, double p) {
    std::vector<T> x(rows * columns), cpu(x.size()), cuda(x.size());
    std::vector<int64_t> row_keys(rows);
    for (size_t i = 0; i < x.size(); ++i) from_float(0.37f * static_cast<float>(i % 101) - 17.0f, x[i]);
    for (int64_t row = 0; row < rows; ++row) row_keys[row] = row * 0x123456789ABCDEF - 5;
    const Dropout rule = make_dropout(p, 0xFEDCBA9876543210, 7 * 256 + 3);
    BERTFAST_DISPATCH(dropout(x.data(), row_keys.data(), rows, columns, rule, cpu.data()));
    const cuda::DropoutArguments<T> arguments{x.data(),    row_keys.data(), rows, columns, rule,
                                              cuda.data(), columns % 4 == 0};
    for (int64_t item = 0; item < rows * cuda::fours(columns); ++item) cuda::dropout_thread(arguments, item);
    const bool equal = memcmp(cpu.data(), cuda.data(), x.size() * sizeof(T)) == 0;
    if (!equal) std::printf("dropout of %d x %d at %g differs\n", int(rows), int(columns), p);
    return equal;
}

}  // namespace

int main() {
    bool equal = true;
    for (const int64_t columns : {1, 3, 4, 33, 64, 128, 511, 600}) {
        for (const double p : {1e-12, 0.2, 0.9}) {
            equal &= same<float>(5, columns, p);
            equal &= same<bfloat16>(5, columns, p);
        }
    }
    return equal ? 0 : 1;
}
