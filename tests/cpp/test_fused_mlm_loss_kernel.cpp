// The CUDA kernels of the fused masked-LM loss, their threads stepped on the host, give the loss and the gradients of a
// plain loop in double.
#include "fused_stepping.h"

using namespace bertfast;

namespace {

struct Case {
    int64_t count, hidden, vocab_size, padded_vocab, splits;
    bool gathers;
    float spread = 1.0f;  // of the logits
};

struct Problem {
    Case of;
    int64_t sources;
    std::vector<bfloat16> rows, decoder;
    std::vector<int64_t> positions, labels;
    std::vector<float> bias, weights;

    explicit Problem(const Case& of) : of(of), sources(of.gathers ? 2 * of.count + 3 : of.count) {
        std::mt19937 random(static_cast<uint32_t>(of.count + of.hidden));
        rows = random_floats<bfloat16>(sources * of.hidden, random);
        const float scale = of.spread / std::sqrt(static_cast<float>(of.hidden));
        decoder = random_floats<bfloat16>(of.padded_vocab * of.hidden, random, scale);
        bias = random_floats<float>(of.padded_vocab, random);
        weights = random_floats<float>(of.count, random);
        labels = random_ints(of.count, random, of.vocab_size);
        for (int64_t row = 0; row < of.count; ++row) {
            if (row % 5 == 1) weights[row] = 0.0f;
            if (row % 3 == 0) labels[row] = of.vocab_size - 1 - row % of.vocab_size;
        }
        for (int64_t i = of.vocab_size * of.hidden; i < of.padded_vocab * of.hidden; ++i) from_float(NAN, decoder[i]);
        for (int64_t i = of.vocab_size; i < of.padded_vocab; ++i) bias[i] = NAN;  // padding may hold anything
        if (!of.gathers) return;
        positions.resize(sources);
        std::iota(positions.begin(), positions.end(), 0);
        std::shuffle(positions.begin(), positions.end(), random);
        positions.resize(of.count);
    }

    cuda::FusedMlmLoss call() const {
        return {rows.data(),    of.gathers ? positions.data() : nullptr,
                decoder.data(), bias.data(),
                labels.data(),  weights.data(),
                sources,        of.count,
                of.hidden,      of.padded_vocab,
                of.vocab_size,  of.splits};
    }
};

constexpr float GRAD = 3.0f;

struct Results {
    std::vector<float> losses;
    std::vector<cuda::RowStatistics> statistics;
    std::vector<bfloat16> grad_rows;
    std::vector<float> grad_decoder, grad_bias;

    Results(const Problem& problem, bool late)
        : losses(poisoned<float>(problem.of.count)),
          statistics(poisoned<cuda::RowStatistics>(problem.of.count)),
          grad_rows(problem.rows.size()),  // what no position names stays as it is: 0
          grad_decoder(poisoned<float>(problem.decoder.size())),
          grad_bias(poisoned<float>(problem.bias.size())) {
        const int64_t parts = problem.of.splits * problem.of.count;
        auto partial = poisoned<LogSumExp>(parts);
        auto label_logits = poisoned<float>(problem.of.count), sums = poisoned<float>(parts * problem.of.hidden);
        step_fused(cuda::FusedMlmLossForward{problem.call(), partial.data(), label_logits.data(), losses.data(),
                                             statistics.data()},
                   late);
        step_fused(cuda::FusedMlmLossBackward{problem.call(), statistics.data(), &GRAD, sums.data(), grad_rows.data(),
                                              grad_decoder.data(), grad_bias.data()},
                   late);
    }
};

bool equals_a_plain_loop(const Case& of, bool late) {
    const Problem problem(of);
    const Results got(problem, late);
    std::vector<double> grad_rows(problem.rows.size()), grad_decoder(problem.decoder.size()),
        grad_bias(of.padded_vocab);
    std::vector<float> losses(of.count);
    for (int64_t row = 0; row < of.count; ++row) {
        const double weight = problem.weights[row];
        if (weight == 0) continue;
        const int64_t source = of.gathers ? problem.positions[row] : row;
        const auto element = [&](const std::vector<bfloat16>& from, int64_t line, int64_t column) {
            return double{to_float(from[line * of.hidden + column])};
        };
        std::vector<double> x(of.vocab_size);
        double maximum = -INFINITY, sum = 0;
        for (int64_t word = 0; word < of.vocab_size; ++word) {
            x[word] = problem.bias[word];
            for (int64_t d = 0; d < of.hidden; ++d) {
                x[word] += element(problem.rows, source, d) * element(problem.decoder, word, d);
            }
            maximum = std::fmax(maximum, x[word]);
        }
        for (const double each : x) sum += std::exp(each - maximum);
        losses[row] = static_cast<float>(weight * (std::log(sum) + maximum - x[problem.labels[row]]));
        for (int64_t word = 0; word < of.vocab_size; ++word) {
            const double share = std::exp(x[word] - maximum) / sum;
            const double gradient = GRAD * weight * (share - (word == problem.labels[row]));
            grad_bias[word] += gradient;
            for (int64_t d = 0; d < of.hidden; ++d) {
                grad_rows[source * of.hidden + d] += gradient * element(problem.decoder, word, d);
                grad_decoder[word * of.hidden + d] += gradient * element(problem.rows, source, d);
            }
        }
    }
    const auto floats = [](const std::vector<double>& values) {
        return std::vector<float>(values.begin(), values.end());
    };
    // The gradients of the logits are rounded to bfloat16 for the products.
    const bool good = near(got.losses, losses, 1e-5, "losses", true) &&
                      near(got.grad_rows, floats(grad_rows), 4e-3, "gradient of the rows") &&
                      near(got.grad_decoder, floats(grad_decoder), 4e-3, "gradient of the decoder") &&
                      near(got.grad_bias, floats(grad_bias), 1e-5, "gradient of the bias");
    if (!good) {
        std::printf("%d rows of %d, %d of %d words in %d splits, gathered %d, spread %g, late %d\n", int(of.count),
                    int(of.hidden), int(of.vocab_size), int(of.padded_vocab), int(of.splits), of.gathers, of.spread,
                    late);
    }
    return good;
}

// So do its gradients, and, through the decoder's, all of the step's.
bool what_is_not_there_makes_its_row_nan() {
    bool good = true;
    for (const int64_t wrong : {int64_t{-1}, int64_t{70}, INT64_MIN, INT64_MAX}) {
        for (const bool label : {false, true}) {
            Problem problem({9, 8, 70, 128, 2, true});
            (label ? problem.labels : problem.positions)[3] = wrong;
            const Results got(problem, false);
            for (int64_t row = 0; row < 9; ++row) good &= std::isnan(got.losses[row]) == (row == 3);
            good &= std::isnan(got.grad_bias[5]);
            for (int64_t row = 0; row < 9; ++row) {
                if (!label && row == 3) continue;
                good &= std::isnan(to_float(got.grad_rows[problem.positions[row] * 8])) == (row == 3);
            }
        }
    }
    if (!good) std::printf("a label or a position out of range is not NaN\n");
    return good;
}

// Rows behind the last that weighs anything are not read, and nor are tiles of rows without weight.
bool fillers_are_not_looked_at() {
    Problem problem({300, 16, 70, 70, 3, false});
    for (int64_t row = 0; row < 300; ++row) {
        const bool silent = row < 128 || row >= 140;
        problem.weights[row] = silent ? 0.0f : 1.0f;
        if (row >= 256) {
            for (int d = 0; d < 16; ++d) from_float(NAN, problem.rows[row * 16 + d]);
            problem.labels[row] = -1;
        }
    }
    const Results got(problem, true);
    bool good = true;
    for (int64_t row = 0; row < 300; ++row) {
        const bool silent = row < 128 || row >= 140;
        good &= (got.losses[row] == 0) == silent && (to_float(got.grad_rows[row * 16]) == 0) == silent;
    }
    for (const float each : got.grad_decoder) good &= each == each;
    for (int64_t row = 0; row < 300; ++row) problem.weights[row] = 0.0f;
    const Results none(problem, true);
    for (const float each : none.grad_decoder) good &= each == 0;
    for (const float each : none.grad_bias) good &= each == 0;
    for (const bfloat16 each : none.grad_rows) good &= to_float(each) == 0;
    if (!good) std::printf("rows without weight are looked at\n");
    return good;
}

}  // namespace

int main() {
    const Case cases[] = {{1, 8, 1, 1, 1, false},
                          {5, 128, 70, 128, 2, false},
                          {130, 128, 200, 256, 3, true},
                          {65, 256, 129, 192, 2, true},
                          {40, 136, 64, 64, 1, false},
                          {300, 24, 130, 130, 5, true},
                          {70, 64, 190, 256, 1, false, 40.0f},
                          {0, 16, 9, 70, 2, false}};
    bool good = what_is_not_there_makes_its_row_nan() & fillers_are_not_looked_at();
    for (const Case& each : cases) good &= equals_a_plain_loop(each, false) & equals_a_plain_loop(each, true);
    return good ? 0 : 1;
}
