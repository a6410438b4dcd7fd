// The threads of the CUDA kernels that work by rows (GELU, LayerNorm, sums over rows), stepped on the host, give what
// the CPU kernels give in float32.
#include "cpu/dispatch.h"
#include "cpu/gelu.h"
#include "cpu/layer_norm.h"
#include "cuda/gelu_kernel.h"
#include "cuda/layer_norm_kernel.h"
#include "stepping.h"

using namespace bertfast;

namespace {

std::vector<float> column_sums(const float* partial, int64_t slices, int64_t stride, int64_t columns) {
    std::vector<float> out = poisoned<float>(columns);
    const cuda::ColumnSums sums{partial, slices, stride, columns, out.data()};
    for (int64_t block = 0; block * cuda::SUM_COLUMNS < columns; ++block) {
        auto shared = poisoned<cuda::ColumnSumsShared>(1);
        for (int phase = 0; phase < cuda::SUM_PHASES; ++phase) {
            every_thread(cuda::SUM_THREADS,
                         [&](int thread) { cuda::column_sums_phase(phase, sums, block, thread, shared[0]); });
        }
    }
    return out;
}

template <typename T>
bool gelu(int64_t rows, int64_t columns, int64_t slices, bool whole) {
    std::mt19937 random(static_cast<uint32_t>(rows * 1009 + columns));
    const auto x = random_floats<T>(rows * columns, random, 3.0f), grad = random_floats<T>(rows * columns, random);
    const auto bias = random_floats<float>(columns, random);
    const auto wide_x = floats_of(x), wide_grad = floats_of(grad);
    std::vector<float> out(x.size()), grad_x(x.size()), grad_bias(columns);
    BERTFAST_DISPATCH(bias_gelu(BiasGelu<float>{wide_x.data(), bias.data(), rows, columns, out.data()}));
    BERTFAST_DISPATCH(bias_gelu_backward(BiasGeluBackward<float>{wide_grad.data(), wide_x.data(), bias.data(), rows,
                                                                 columns, grad_x.data(), grad_bias.data()}));

    auto our_out = poisoned<T>(out.size()), our_grad_x = poisoned<T>(out.size());
    auto partial = poisoned<float>(slices * columns);
    const BiasGelu<T> forward{x.data(), bias.data(), rows, columns, our_out.data()};
    const BiasGeluBackward<T> backward{grad.data(), x.data(), bias.data(), rows, columns, our_grad_x.data(), nullptr};
    for (int64_t item = 0; item < rows * cuda::fours(columns); ++item) cuda::gelu_thread(forward, whole, item);
    for (int64_t item = 0; item < slices * cuda::fours(columns); ++item) {
        cuda::gelu_backward_thread(backward, whole, partial.data(), slices, item);
    }
    return near(our_out, out, 1e-6, "gelu") && near(our_grad_x, grad_x, 1e-6, "gelu's gradient") &&
           near(column_sums(partial.data(), slices, columns, columns), grad_bias, 1e-5, "gelu's bias gradient");
}

template <typename T>
bool layer_norm(int64_t rows, int64_t columns, int64_t slices, bool whole, bool drops) {
    std::mt19937 random(static_cast<uint32_t>(rows * 1009 + columns));
    const auto x = random_floats<T>(rows * columns, random), grad = random_floats<T>(rows * columns, random);
    auto residual = random_floats<T>(rows * columns, random);
    for (T& each : residual) from_float(to_float(each) + 20.0f, each);  // E[x^2] - E[x]^2 would cancel
    const auto weight = random_floats<float>(columns, random), bias = random_floats<float>(columns, random);
    const auto row_keys = random_ints(rows, random, int64_t{1} << 60);
    const Dropout rule = make_dropout(0.2, 11, 256 * 5);
    const auto wide_x = floats_of(x), wide_residual = floats_of(residual), wide_grad = floats_of(grad);
    std::vector<float> out(x.size()), moments(2 * rows), grad_x(x.size()), grad_residual(x.size());
    std::vector<float> grad_weight(columns), grad_bias(columns);
    BERTFAST_DISPATCH(dropout_add_layer_norm(
        DropoutAddLayerNorm<float>{wide_x.data(), wide_residual.data(), weight.data(), bias.data(), 1e-12f,
                                   row_keys.data(), drops, rule, rows, columns, out.data(), moments.data()}));
    BERTFAST_DISPATCH(dropout_add_layer_norm_backward(DropoutAddLayerNormBackward<float>{
        wide_grad.data(), wide_x.data(), wide_residual.data(), weight.data(), moments.data(), row_keys.data(), drops,
        rule, rows, columns, grad_x.data(), grad_residual.data(), grad_weight.data(), grad_bias.data()}));

    auto our_out = poisoned<T>(out.size()), our_grad_x = poisoned<T>(out.size());
    auto our_grad_residual = poisoned<T>(out.size());
    auto our_moments = poisoned<float>(2 * rows), partial = poisoned<float>(slices * 2 * columns);
    const DropoutAddLayerNorm<T> forward{x.data(), residual.data(), weight.data(),  bias.data(),
                                         1e-12f,   row_keys.data(), drops,          rule,
                                         rows,     columns,         our_out.data(), our_moments.data()};
    const DropoutAddLayerNormBackward<T> backward{
        grad.data(), x.data(), residual.data(), weight.data(),     moments.data(),           row_keys.data(), drops,
        rule,        rows,     columns,         our_grad_x.data(), our_grad_residual.data(), nullptr,         nullptr};
    for (int64_t row = 0; row < rows; ++row) {
        auto memory = poisoned<float>(cuda::warp_floats(columns, cuda::LAYER_NORM_ROWS));
        for (int phase = 0; phase < cuda::LAYER_NORM_PHASES; ++phase) {
            every_thread(cuda::WARP, [&](int lane) {
                cuda::layer_norm_phase(phase, forward, whole, row, {memory.data(), columns, lane});
            });
        }
    }
    for (int64_t slice = 0; slice < slices; ++slice) {
        auto memory = poisoned<float>(cuda::warp_floats(columns, cuda::LAYER_NORM_BACKWARD_ROWS));
        const auto lanes = [&](const auto& phase) {
            every_thread(cuda::WARP, [&](int lane) { phase(cuda::WarpRows{memory.data(), columns, lane}); });
        };
        lanes([&](const cuda::WarpRows& warp) { cuda::clear_sums(warp, 2, 2); });
        for (int64_t row = cuda::slice_row(rows, slices, slice); row < cuda::slice_row(rows, slices, slice + 1);
             ++row) {
            for (int phase = 0; phase < cuda::LAYER_NORM_BACKWARD_PHASES; ++phase) {
                lanes([&](const cuda::WarpRows& warp) {
                    cuda::layer_norm_backward_phase(phase, backward, whole, row, warp);
                });
            }
        }
        lanes([&](const cuda::WarpRows& warp) {
            cuda::store_sums(warp, 2, 2, whole, partial.data() + slice * 2 * columns);
        });
    }
    const float* const second = partial.data() + columns;
    return near(our_moments, moments, 1e-6, "moments") && near(our_out, out, 2e-5, "LayerNorm") &&
           near(our_grad_residual, grad_residual, 1e-5, "LayerNorm's gradient of the residual") &&
           near(our_grad_x, grad_x, 1e-5, "LayerNorm's gradient of x", drops) &&
           near(column_sums(partial.data(), slices, 2 * columns, columns), grad_weight, 1e-5, "weight's gradient") &&
           near(column_sums(second, slices, 2 * columns, columns), grad_bias, 1e-5, "bias's gradient");
}

template <typename T>
bool all() {
    bool good = true;
    for (const int64_t columns : {1, 2, 7, 8, 33, 64, 128, 130, 768, 1500}) {
        for (const int64_t rows : {0, 1, 5, 70}) {
            for (const int64_t slices : {1, 3, 40}) {
                for (const bool whole : {false, columns % 4 == 0}) {
                    // Of rows of two, the gradients all but cancel.
                    const bool fine = gelu<T>(rows, columns, slices, whole) &&
                                      (columns <= 2 || (layer_norm<T>(rows, columns, slices, whole, false) &&
                                                        layer_norm<T>(rows, columns, slices, whole, true)));
                    if (!fine) {
                        std::printf("%d x %d, %d slices, %s, %d bytes\n", int(rows), int(columns), int(slices),
                                    whole ? "whole" : "elements", int(sizeof(T)));
                    }
                    good &= fine;
                }
            }
        }
    }
    return good;
}

}  // namespace

int main() {
    return all<float>() & all<bfloat16>() ? 0 : 1;
}
