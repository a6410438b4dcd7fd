// The CUDA kernels of the fused masked-LM loss, their threads stepped on the host, give the loss and the gradients of a
// plain loop in double.
#include <map>
#include <set>
#include <utility>

#include "fused_stepping.h"

using namespace bertfast;

namespace {

struct Case {
    int64_t count, hidden, vocab_size, padded_vocab, splits;
    bool gathers;
    float spread = 1.0f;  // of the logits
};

struct Problem {
    Case sizes;
    int64_t sources;
    std::vector<bfloat16> rows, decoder;
    std::vector<int64_t> positions, labels;
    std::vector<float> bias, weights;

    explicit Problem(const Case& sizes) : sizes(sizes), sources(sizes.gathers ? 2 * sizes.count + 3 : sizes.count) {
        std::mt19937 random(static_cast<uint32_t>(sizes.count + sizes.hidden));
        rows = random_floats<bfloat16>(sources * sizes.hidden, random);
        const float scale = sizes.spread / std::sqrt(static_cast<float>(sizes.hidden));
        decoder = random_floats<bfloat16>(sizes.padded_vocab * sizes.hidden, random, scale);
        bias = random_floats<float>(sizes.padded_vocab, random);
        weights = random_floats<float>(sizes.count, random);
        labels = random_ints(sizes.count, random, sizes.vocab_size);
        for (int64_t row = 0; row < sizes.count; ++row) {
            if (row % 5 == 1) weights[row] = 0.0f;
            if (row % 3 == 0) labels[row] = sizes.vocab_size - 1 - row % sizes.vocab_size;
        }
        for (int64_t i = sizes.vocab_size * sizes.hidden; i < sizes.padded_vocab * sizes.hidden; ++i)
            from_float(NAN, decoder[i]);
        for (int64_t i = sizes.vocab_size; i < sizes.padded_vocab; ++i) bias[i] = NAN;  // padding may hold anything
        if (!sizes.gathers) return;
        positions.resize(sources);
        std::iota(positions.begin(), positions.end(), 0);
        std::shuffle(positions.begin(), positions.end(), random);
        positions.resize(sizes.count);
    }

    cuda::FusedMlmLoss call() const {
        return {rows.data(),      sizes.gathers ? positions.data() : nullptr,
                decoder.data(),   bias.data(),
                labels.data(),    weights.data(),
                sources,          sizes.count,
                sizes.hidden,     sizes.padded_vocab,
                sizes.vocab_size, sizes.splits};
    }
};

constexpr float GRAD = 3.0f;

struct Results {
    std::vector<float> losses;
    std::vector<cuda::RowStatistics> statistics;
    std::vector<bfloat16> grad_rows, grad_decoder;
    std::vector<float> grad_bias;

    Results(const Problem& problem, bool by_warpgroups, bool late)
        : losses(poisoned<float>(problem.sizes.count)),
          statistics(poisoned<cuda::RowStatistics>(problem.sizes.count)),
          grad_rows(problem.rows.size()),  // a row without a position stays unchanged: 0
          grad_decoder(poisoned<bfloat16>(problem.decoder.size())),
          grad_bias(poisoned<float>(problem.bias.size())) {
        const int64_t parts = problem.sizes.splits * problem.sizes.count;
        auto partial = poisoned<LogSumExp>(parts);
        auto label_logits = poisoned<float>(problem.sizes.count), sums = poisoned<float>(parts * problem.sizes.hidden);
        const auto step = [&](const auto& call) {
            by_warpgroups ? step_fused<cuda::WarpgroupProducts>(call, late)
                          : step_fused<cuda::WarpProducts>(call, late);
        };
        step(cuda::FusedMlmLossForward{problem.call(), partial.data(), label_logits.data(), losses.data(),
                                       statistics.data()});
        step(cuda::FusedMlmLossBackward{problem.call(), statistics.data(), &GRAD, sums.data(), grad_rows.data(),
                                        grad_decoder.data(), grad_bias.data()});
    }
};

bool equals_a_plain_loop(const Case& sizes, bool by_warpgroups, bool late) {
    const Problem problem(sizes);
    const Results got(problem, by_warpgroups, late);
    std::vector<double> grad_rows(problem.rows.size()), grad_decoder(problem.decoder.size()),
        grad_bias(sizes.padded_vocab);
    std::vector<float> losses(sizes.count);
    for (int64_t row = 0; row < sizes.count; ++row) {
        const double weight = problem.weights[row];
        if (weight == 0) continue;
        const int64_t source = sizes.gathers ? problem.positions[row] : row;
        const auto element = [&](const std::vector<bfloat16>& from, int64_t line, int64_t column) {
            return double{to_float(from[line * sizes.hidden + column])};
        };
        std::vector<double> x(sizes.vocab_size);
        double maximum = -INFINITY, sum = 0;
        for (int64_t word = 0; word < sizes.vocab_size; ++word) {
            x[word] = problem.bias[word];
            for (int64_t d = 0; d < sizes.hidden; ++d) {
                x[word] += element(problem.rows, source, d) * element(problem.decoder, word, d);
            }
            maximum = std::fmax(maximum, x[word]);
        }
        for (const double each : x) sum += std::exp(each - maximum);
        losses[row] = static_cast<float>(weight * (std::log(sum) + maximum - x[problem.labels[row]]));
        for (int64_t word = 0; word < sizes.vocab_size; ++word) {
            const double share = std::exp(x[word] - maximum) / sum;
            const double gradient = GRAD * weight * (share - (word == problem.labels[row]));
            grad_bias[word] += gradient;
            for (int64_t d = 0; d < sizes.hidden; ++d) {
                grad_rows[source * sizes.hidden + d] += gradient * element(problem.decoder, word, d);
                grad_decoder[word * sizes.hidden + d] += gradient * element(problem.rows, source, d);
            }
        }
    }
    const auto floats = [](const std::vector<double>& values) {
        return std::vector<float>(values.begin(), values.end());
    };
    // The gradients of the logits are rounded to bfloat16 before the products.
    const bool good = near(got.losses, losses, 1e-5, "losses", true) &&
                      near(got.grad_rows, floats(grad_rows), 4e-3, "gradient of the rows") &&
                      near(got.grad_decoder, floats(grad_decoder), 4e-3, "gradient of the decoder") &&
                      near(got.grad_bias, floats(grad_bias), 1e-5, "gradient of the bias");
    if (!good) {
        std::printf("%d rows of %d, %d of %d words in %d splits, gathered %d, spread %g, warpgroups %d, late %d\n",
                    int(sizes.count), int(sizes.hidden), int(sizes.vocab_size), int(sizes.padded_vocab),
                    int(sizes.splits), sizes.gathers, sizes.spread, by_warpgroups, late);
    }
    return good;
}

// A wrong label or position makes the row's loss and gradients NaN and, through the decoder's gradient, the whole step.
bool bad_labels_and_positions_are_nan() {
    bool good = true;
    for (const int64_t wrong : {int64_t{-1}, int64_t{70}, INT64_MIN, INT64_MAX}) {
        for (const bool label : {false, true}) {
            Problem problem({9, 8, 70, 128, 2, true});
            (label ? problem.labels : problem.positions)[3] = wrong;
            const Results got(problem, label, false);
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

// Rows after the last one with a weight, and tiles of rows without weights, are not read.
bool rows_without_weight_are_not_read(bool by_warpgroups) {
    Problem problem({300, 16, 70, 70, 3, false});
    for (int64_t row = 0; row < 300; ++row) {
        const bool silent = row < 128 || row >= 140;
        problem.weights[row] = silent ? 0.0f : 1.0f;
        if (row >= 256) {
            for (int d = 0; d < 16; ++d) from_float(NAN, problem.rows[row * 16 + d]);
            problem.labels[row] = -1;
        }
    }
    const Results got(problem, by_warpgroups, true);
    bool good = true;
    for (int64_t row = 0; row < 300; ++row) {
        const bool silent = row < 128 || row >= 140;
        good &= (got.losses[row] == 0) == silent && (to_float(got.grad_rows[row * 16]) == 0) == silent;
    }
    for (const bfloat16 each : got.grad_decoder) good &= !std::isnan(to_float(each));
    for (int64_t row = 0; row < 300; ++row) problem.weights[row] = 0.0f;
    const Results none(problem, by_warpgroups, true);
    for (const bfloat16 each : none.grad_decoder) good &= to_float(each) == 0;
    for (const float each : none.grad_bias) good &= each == 0;
    for (const bfloat16 each : none.grad_rows) good &= to_float(each) == 0;
    if (!good) std::printf("rows without weight are read\n");
    return good;
}

// --- Layouts ---

// Each element of the three results belongs to one thread, and so does each part of a row and of a column.
template <typename Products>
bool threads_share_all_elements() {
    using Size = typename Products::Size;
    std::set<std::pair<int, int>> logits, rows, words, of_rows, of_columns;
    bool good = true;
    for (int thread = 0; thread < cuda::TILE_THREADS; ++thread) {
        std::set<int> elements;
        for (int held = 0; held < Products::HELD; ++held) {
            const cuda::Place at = Products::first(thread, held);
            good &= at.column == Products::first(thread, 0).column;
            of_rows.insert({at.row, Products::part_of_row(thread)});
            for (int i = 0; i < Products::COUNT; ++i) {
                logits.insert({at.row, at.column + Products::column(i)});
                elements.insert(Products::element(held, i));
                if (held == 0) of_columns.insert({at.column + Products::column(i), Products::part_of_column(thread)});
            }
        }
        good &= elements.size() == Size::LOGITS && *elements.begin() == 0 && *elements.rbegin() == Size::LOGITS - 1;
        for (int i = 0; i < Size::GRAD_ROWS; ++i) {
            const cuda::Place at = Products::place_in_rows(thread, i);
            rows.insert({at.row, at.column});
        }
        for (int i = 0; i < Size::GRAD_WORDS; ++i) {
            const cuda::Place at = Products::place_in_words(thread, i);
            words.insert({at.row, at.column});
        }
    }
    const auto fills = [](const std::set<std::pair<int, int>>& seen, int height, int width) {
        bool within = int(seen.size()) == height * width;
        for (const auto& [row, column] : seen) within &= row >= 0 && row < height && column >= 0 && column < width;
        return within;
    };
    good &= fills(logits, Size::ROWS, cuda::TILE) && fills(rows, Size::ROWS, Size::MAX_HIDDEN);
    good &= fills(words, cuda::TILE, Size::MAX_HIDDEN) && fills(of_rows, Size::ROWS, Products::IN_ROW);
    good &= fills(of_columns, cuda::TILE, Products::IN_COLUMN);
    if (!good) std::printf("threads don't share the products, rows %d, in a row %d\n", Size::ROWS, Products::IN_ROW);
    return good;
}

// The address where wgmma reads an element of a factor (`line` along its rows or columns, `step` of 16 along the sum),
// as the PTX manual describes a descriptor with the 128-byte swizzle: groups of eight rows of 128 bytes, the stride
// apart; where it is transposed, eight steps of 64 lines, the stride apart, and the next 64 lines the leading offset
// apart. Of the address's bits, 4 to 6 are then changed by 7 to 9.
uint32_t address_of(uint64_t descriptor, bool transposed, int line, int step) {
    const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4; };
    const uint32_t start = field(0), leading = field(16), stride = field(32);
    const uint32_t address = transposed
                                 ? start + line / 64 * leading + line % 64 * 2 + step / 8 * stride + step % 8 * 128
                                 : start + line / 8 * stride + line % 8 * 128 + step * 2;
    return address ^ (address >> 7 & 7) << 4;
}

bool descriptors_find_every_element() {
    bool good = true;
    for (const uint32_t base : {0u, 1024u, 200u << 10}) {
        for (int k = 0; k < cuda::TILE; k += 16) {
            for (int step = 0; step < 16; ++step) {
                for (int line = 0; line < 128; ++line) {
                    const auto at = [&](int tile, int row, int column) {
                        return base + tile * sizeof(cuda::SwizzledTile) + 2 * cuda::SwizzledTile::index(row, column);
                    };
                    const uint64_t across = cuda::descriptor(base + cuda::step_bytes(k, true), true);
                    good &= address_of(across, true, line, step) == at(line / 64, k + step, line % 64);
                    if (line >= 64) continue;
                    const uint64_t along = cuda::descriptor(base + cuda::step_bytes(k, false), false);
                    good &= address_of(along, false, line, step) == at(0, line, k + step);
                    good &= along >> 62 == 1 && across >> 62 == 1;              // the code of the swizzle
                    good &= (along >> 49 & 7) == 0 && (across >> 49 & 7) == 0;  // tiles begin at multiples of 1024
                }
            }
        }
    }
    if (!good) std::printf("a descriptor misses elements\n");
    return good;
}

// A warp's threads, which store a run each, together hit every bank equally.
template <typename Products>
bool hits_every_bank() {
    bool good = true;
    for (int warp = 0; warp < cuda::TILE_THREADS; warp += 32) {
        std::map<int, int> words;  // stored to each bank
        for (int thread = warp; thread < warp + 32; ++thread) {
            const cuda::Place at = Products::first(thread, 0);
            const int index = Products::Operand::index(at.row % cuda::TILE, at.column);
            for (int i = 0; i < Products::RUN; i += 2) ++words[(index + i) / 2 % 32];
        }
        for (const auto& [bank, count] : words) good &= count == Products::RUN / 2;
        good &= words.size() == 32;
    }
    return good;
}

bool stores_hit_every_bank() {
    const bool good = hits_every_bank<cuda::WarpgroupProducts<cuda::NarrowRows>>() &
                      hits_every_bank<cuda::WarpgroupProducts<cuda::WideRows>>();
    if (!good) std::printf("stores of gradients share banks\n");
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
    bool good = bad_labels_and_positions_are_nan();
    for (const bool by_warpgroups : {false, true}) {
        good &= rows_without_weight_are_not_read(by_warpgroups);
        for (const Case& each : cases) {
            for (const bool late : {false, true}) good &= equals_a_plain_loop(each, by_warpgroups, late);
        }
    }
    good &= threads_share_all_elements<cuda::WarpProducts<cuda::NarrowRows>>() &
            threads_share_all_elements<cuda::WarpProducts<cuda::WideRows>>();
    good &= threads_share_all_elements<cuda::WarpgroupProducts<cuda::NarrowRows>>() &
            threads_share_all_elements<cuda::WarpgroupProducts<cuda::WideRows>>();
    good &= descriptors_find_every_element() & stores_hit_every_bank();
    return good ? 0 : 1;
}
