#include "cpu/kernels.h"
#include "cpu/simd/normal.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

template <typename T>
void forward(const BiasGelu<T>& call) {
    parallel_for(call.rows, 1 + 8192 / (call.columns + 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const T* const x = call.x + row * call.columns;
            T* const out = call.out + row * call.columns;
            over_vectors(call.columns, [&](int64_t c, int64_t left) {
                const Floats u = load_upto(x + c, left) + load_upto(call.bias + c, left);
                store_upto(out + c, u * normal(u).below, left);
            });
        }
    });
}

// gelu'(u) = Phi(u) + u phi(u)
template <typename T>
void backward(const BiasGeluBackward<T>& call) {
    ColumnSums sums(call.rows, call.columns);
    sums.over_chunks([&](int64_t begin, int64_t end, float* grad_bias) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t first = row * call.columns;
            over_vectors(call.columns, [&](int64_t c, int64_t left) {
                const Floats u = load_upto(call.x + first + c, left) + load_upto(call.bias + c, left);
                const Normal<Floats> at = normal(u);
                const Floats grad = load_upto(call.grad + first + c, left) * (at.below + u * at.density);
                store_upto(call.grad_x + first + c, grad, left);
                add_to(grad_bias + c, grad);
            });
        }
    });
    sums.total(0, call.columns, call.grad_bias);
}

}  // namespace

void bias_gelu(const BiasGelu<float>& call) {
    forward(call);
}
void bias_gelu(const BiasGelu<bfloat16>& call) {
    forward(call);
}
void bias_gelu_backward(const BiasGeluBackward<float>& call) {
    backward(call);
}
void bias_gelu_backward(const BiasGeluBackward<bfloat16>& call) {
    backward(call);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
