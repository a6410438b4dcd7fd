#include "cuda/dropout_kernel.cuh"
#include "cuda/launch.cuh"
#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

constexpr int THREADS = 256;

template <typename T>
__global__ void __launch_bounds__(THREADS) dropout_kernel(DropoutArguments<T> arguments) {
    for_each_of_thread(arguments.rows * fours(arguments.columns),
                       [&](int64_t item) { dropout_thread(arguments, item); });
}

template <typename T>
void launch(const T* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule, T* out,
            void* stream) {
    const DropoutArguments<T> arguments{x, row_keys, rows, columns, rule, out, in_fours(columns, x, out)};
    const unsigned blocks = grid(rows * fours(columns), THREADS);
    if (blocks == 0) return;
    dropout_kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(arguments);
    check_launch("dropout" + of_size(rows, columns));
}

}  // namespace

void dropout(const float* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule, float* out,
             void* stream) {
    launch(x, row_keys, rows, columns, rule, out, stream);
}

void dropout(const bfloat16* x, const int64_t* row_keys, int64_t rows, int64_t columns, const Dropout& rule,
             bfloat16* out, void* stream) {
    launch(x, row_keys, rows, columns, rule, out, stream);
}

}  // namespace bertfast::cuda
