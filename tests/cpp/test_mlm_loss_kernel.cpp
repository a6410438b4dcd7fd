// The CUDA kernels' threads, stepped on the host a phase at a time, give the loss and the gradients of a plain loop in
// double.
#include <cmath>
#include <cstdio>
#include <vector>

#include "cuda/mlm_loss_kernel.cuh"
#include "stepping.h"

using namespace bertfast;

namespace {

template <typename T>
void step(const MlmLossChunk<T>& chunk) {
    for (int64_t row = 0; row < chunk.rows; ++row) {
        cuda::MlmLossShared shared;
        const int threads = cuda::MLM_LOSS_THREADS;
        every_thread(threads, [&](int thread) { cuda::phase_sum(chunk, row, thread, shared); });
        for (int half = threads / 2; half > 0; half /= 2) {
            every_thread(threads, [&](int thread) { cuda::phase_merge(half, thread, shared); });
        }
        every_thread(threads, [&](int thread) { cuda::phase_gradient(chunk, row, thread, shared); });
    }
    if (!chunk.bias_gradient) return;
    for (int64_t item = 0; item < chunk.slices * (chunk.columns / cuda::Pack<T>::SIZE); ++item) {
        cuda::bias_gradient_thread(chunk, item);
    }
}

bool near(double got, double expected, double tolerance, const char* what) {
    if (std::fabs(got - expected) <= tolerance) return true;
    std::printf("%s: %.9g, not %.9g\n", what, got, expected);
    return false;
}

template <typename T>
struct Problem {
    std::vector<T> logits;
    std::vector<float> bias, weights, losses, bias_gradient;
    std::vector<int64_t> labels;
    MlmLossChunk<T> chunk;

    Problem(int64_t rows, int64_t columns, int64_t vocab_size, int64_t slices, float spread)
        : logits(rows * columns),
          bias(columns),
          weights(rows),
          losses(rows),
          bias_gradient(slices * columns, 0.5f),
          labels(rows) {
        uint32_t state = 12345;
        const auto uniform = [&] { return (state = state * 1664525 + 1013904223) * 0x1p-32f; };
        for (T& each : logits) from_float(spread * (uniform() - 0.5f), each);
        for (float& each : bias) each = uniform();
        for (int64_t row = 0; row < rows; ++row) {
            weights[row] = row % 3 == 1 ? 0.0f : 0.1f + uniform();
            labels[row] = row % 2 ? vocab_size - 1 : row * 7919 % vocab_size;
            // Padding may hold anything.
            for (int64_t c = vocab_size; c < columns; ++c) from_float(NAN, logits[row * columns + c]);
        }
        if (rows > 2) from_float(300.0f, logits[2 * columns + vocab_size / 2]);
        chunk = {logits.data(), bias.data(), labels.data(), weights.data(),       rows,
                 columns,       vocab_size,  losses.data(), bias_gradient.data(), slices};
    }
};

template <typename T>
bool equals_a_plain_loop(int64_t rows, int64_t columns, int64_t vocab_size, int64_t slices, float spread) {
    Problem<T> problem(rows, columns, vocab_size, slices, spread);
    const std::vector<T> x = problem.logits;
    step(problem.chunk);
    bool good = true;
    // A gradient is rounded once, to T; float32 sums are exact to about 1e-6.
    const double rounding = sizeof(T) == 2 ? 0x1p-8 : 0.0;
    std::vector<double> bias_gradient(columns, 0.5 * slices);
    for (int64_t row = 0; row < rows; ++row) {
        const double weight = problem.weights[row];
        const auto logit = [&](int64_t c) { return double{to_float(x[row * columns + c]) + problem.bias[c]}; };
        double maximum = -INFINITY, sum = 0;
        for (int64_t c = 0; c < vocab_size; ++c) maximum = std::max(maximum, logit(c));
        for (int64_t c = 0; c < vocab_size; ++c) sum += std::exp(logit(c) - maximum);
        const double loss = maximum + std::log(sum) - logit(problem.labels[row]);
        good &= near(problem.losses[row], weight * loss, 1e-5 * (1 + loss), "loss");
        for (int64_t c = 0; c < columns; ++c) {
            const double share = c < vocab_size ? std::exp(logit(c) - maximum) / sum : 0;
            const double gradient = weight * (share - (c == problem.labels[row]));
            const double got = to_float(problem.logits[row * columns + c]);
            good &= near(got, gradient, 1e-6 + rounding * std::fabs(gradient), "gradient");
            if (c >= vocab_size || weight == 0) good &= got == 0;
            bias_gradient[c] += got;
        }
    }
    for (int64_t c = 0; c < columns; ++c) {
        double total = 0;
        for (int64_t slice = 0; slice < slices; ++slice) total += problem.bias_gradient[slice * columns + c];
        good &= near(total, bias_gradient[c], 1e-5 * (1 + rows), "bias gradient");
    }

    Problem<T> loss_only(rows, columns, vocab_size, slices, spread);
    loss_only.chunk.bias_gradient = nullptr;
    step(loss_only.chunk);
    good &= loss_only.losses == problem.losses;
    good &= memcmp(loss_only.logits.data(), x.data(), x.size() * sizeof(T)) == 0;
    if (!good) {
        std::printf("%d rows, %d of %d columns, %d slices, spread %g, %d bytes\n", int(rows), int(vocab_size),
                    int(columns), int(slices), spread, int(sizeof(T)));
    }
    return good;
}

template <typename T>
bool bad_labels_are_nan() {
    bool good = true;
    for (const int64_t label : {int64_t{-1}, int64_t{129}, INT64_MIN, INT64_MAX}) {
        Problem<T> problem(3, 136, 129, 2, 4.0f);
        problem.labels[2] = label;
        for (T& each : problem.logits) from_float(1.0f, each);
        step(problem.chunk);
        good &= std::isnan(problem.losses[2]) && std::isnan(to_float(problem.logits[2 * 136]));
        good &= !std::isnan(problem.losses[0]) && !std::isnan(to_float(problem.logits[0]));
    }
    if (!good) std::printf("a label out of range is not NaN\n");
    return good;
}

template <typename T>
bool all() {
    bool good = bad_labels_are_nan<T>();
    for (const float spread : {0.0f, 8.0f, 160.0f}) {
        for (const int64_t vocab_size : {1, 7, 8, 123, 128, 129, 2048, 2049, 6899}) {
            for (const int64_t rows : {1, 7}) {
                good &= equals_a_plain_loop<T>(rows, (vocab_size + 7) / 8 * 8, vocab_size, 3, spread);
                good &= equals_a_plain_loop<T>(rows, (vocab_size + 7) / 8 * 8 + 128, vocab_size, 1, spread);
            }
        }
    }
    return good;
}

}  // namespace

int main() {
    return all<float>() & all<bfloat16>() ? 0 : 1;
}
