// The threads of the CUDA kernels that work by rows (GELU, LayerNorm, embedding, sums over rows), stepped on the host,
// give the results of the CPU kernels in float32.
#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "cuda/embedding_kernel.cuh"
#include "cuda/gelu_kernel.cuh"
#include "cuda/layer_norm_kernel.cuh"
#include "stepping.h"

using namespace bertfast;

namespace {

// The host's `lanes` (warp_layer_norm.cuh): a warp with `rows` rows in its memory.
class HostLanes {
  public:
    HostLanes(int64_t columns, int64_t rows)
        : memory_(poisoned<float>(cuda::warp_floats(columns, rows))), columns_(columns) {}

    template <typename Body>
    void operator()(const Body& body) const {
        every_thread(cuda::WARP, [&](int lane) { body(cuda::WarpRows{memory_.data(), columns_, lane}); });
    }

  private:
    mutable std::vector<float> memory_;
    int64_t columns_;
};

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
    const Dropout rule = make_dropout(drops ? 0.2 : 0.0, 11, 256 * 5);
    const auto wide_x = floats_of(x), wide_residual = floats_of(residual), wide_grad = floats_of(grad);
    std::vector<float> out(x.size()), moments(2 * rows), grad_x(x.size()), grad_residual(x.size());
    std::vector<float> grad_weight(columns), grad_bias(columns);
    BERTFAST_DISPATCH(dropout_add_layer_norm(
        DropoutAddLayerNorm<float>{wide_x.data(), wide_residual.data(), weight.data(), bias.data(), 1e-12f,
                                   row_keys.data(), rule, rows, columns, out.data(), moments.data()}));
    BERTFAST_DISPATCH(dropout_add_layer_norm_backward(DropoutAddLayerNormBackward<float>{
        wide_grad.data(), wide_x.data(), wide_residual.data(), weight.data(), moments.data(), row_keys.data(), rule,
        rows, columns, grad_x.data(), grad_residual.data(), grad_weight.data(), grad_bias.data()}));

    auto our_out = poisoned<T>(out.size()), our_grad_x = poisoned<T>(out.size());
    auto our_grad_residual = poisoned<T>(out.size());
    auto our_moments = poisoned<float>(2 * rows), partial = poisoned<float>(slices * 2 * columns);
    const DropoutAddLayerNorm<T> forward{
        x.data(), residual.data(), weight.data(),  bias.data(),       1e-12f, row_keys.data(), rule,
        rows,     columns,         our_out.data(), our_moments.data()};
    const DropoutAddLayerNormBackward<T> backward{
        grad.data(), x.data(), residual.data(), weight.data(),     moments.data(),           row_keys.data(),
        rule,        rows,     columns,         our_grad_x.data(), our_grad_residual.data(), nullptr,
        nullptr};
    for (int64_t row = 0; row < rows; ++row) {
        cuda::layer_norm_row(forward, whole, row, HostLanes(columns, cuda::LAYER_NORM_ROWS));
    }
    for (int64_t slice = 0; slice < slices; ++slice) {
        const HostLanes lanes(columns, cuda::LAYER_NORM_BACKWARD_ROWS);
        cuda::layer_norm_slice(backward, whole, slice, slices, partial.data(), lanes);
    }
    const float* const second = partial.data() + columns;
    return near(our_moments, moments, 1e-6, "moments") && near(our_out, out, 2e-5, "LayerNorm") &&
           near(our_grad_residual, grad_residual, 1e-5, "LayerNorm's gradient of the residual") &&
           near(our_grad_x, grad_x, 1e-5, "LayerNorm's gradient of x", drops) &&
           near(column_sums(partial.data(), slices, 2 * columns, columns), grad_weight, 1e-5, "weight's gradient") &&
           near(column_sums(second, slices, 2 * columns, columns), grad_bias, 1e-5, "bias's gradient");
}

template <typename Tokens>
std::vector<float> add_by_entry(const Tokens& tokens, int64_t entries, const std::vector<float>& rows, int64_t hidden,
                                bool whole, std::vector<float> grad) {
    const cuda::EntrySums<Tokens> sums{rows.data(), tokens, entries, hidden, grad.data()};
    for (int64_t entry = 0; entry < entries; ++entry) {
        for (int64_t column = 0; column < hidden; column += cuda::ENTRY_COLUMNS) {
            auto shared = poisoned<cuda::EntryShared>(1);
            for (int phase = 0; phase < cuda::ENTRY_PHASES; ++phase) {
                every_thread(cuda::ENTRY_THREADS, [&](int thread) {
                    cuda::entry_phase(phase, sums, whole, entry, column, thread, shared[0]);
                });
            }
        }
    }
    return grad;
}

template <typename T>
bool embedding(int64_t tokens, int64_t hidden, int64_t slices, bool whole, bool drops) {
    constexpr int64_t WORDS = 9, TYPES = 2, POSITIONS = 70;
    std::mt19937 random(static_cast<uint32_t>(tokens * 1009 + hidden));
    const auto ids = random_ints(tokens, random, WORDS), types = random_ints(tokens, random, TYPES);
    const Places places(tokens, POSITIONS, random);
    const auto word = random_floats<float>(WORDS * hidden, random), type = random_floats<float>(TYPES * hidden, random);
    const auto position = random_floats<float>(POSITIONS * hidden, random);
    const auto weight = random_floats<float>(hidden, random), bias = random_floats<float>(hidden, random);
    const auto row_keys = random_ints(tokens, random, int64_t{1} << 60);
    const auto grad = random_floats<T>(tokens * hidden, random);
    const auto wide_grad = floats_of(grad);
    const Dropout rule = make_dropout(drops ? 0.2 : 0.0, 11, 256 * 5);
    const EmbeddingTables tables = {ids.data(),  types.data(), places.positions.data(),
                                    word.data(), type.data(),  position.data(),
                                    WORDS,       TYPES,        POSITIONS,
                                    tokens,      hidden};
    std::vector<float> out(tokens * hidden), moments(2 * tokens), grad_sum(out.size()), grad_type(type.size());
    std::vector<float> grad_weight(hidden), grad_bias(hidden);
    const auto words_before = random_floats<float>(word.size(), random);
    const auto positions_before = random_floats<float>(position.size(), random);
    auto grad_word = words_before, grad_position = positions_before;
    BERTFAST_DISPATCH(embedding_layer_norm(EmbeddingLayerNorm<float>{
        tables, weight.data(), bias.data(), 1e-12f, row_keys.data(), rule, out.data(), moments.data()}));
    BERTFAST_DISPATCH(embedding_layer_norm_backward(EmbeddingLayerNormBackward<float>{
        wide_grad.data(), tables, weight.data(), moments.data(), row_keys.data(), rule, grad_sum.data(),
        grad_word.data(), grad_type.data(), grad_position.data(), grad_weight.data(), grad_bias.data()}));

    auto our_out = poisoned<T>(out.size());
    auto our_moments = poisoned<float>(2 * tokens), our_grad_sum = poisoned<float>(out.size());
    auto partial = poisoned<float>(slices * (2 + TYPES) * hidden);
    const EmbeddingLayerNorm<T> forward{tables,          weight.data(), bias.data(),    1e-12f,
                                        row_keys.data(), rule,          our_out.data(), our_moments.data()};
    const EmbeddingLayerNormBackward<T> backward{
        grad.data(),         tables,  weight.data(), moments.data(), row_keys.data(), rule,
        our_grad_sum.data(), nullptr, nullptr,       nullptr,        nullptr,         nullptr};
    for (int64_t token = 0; token < tokens; ++token) {
        cuda::embedding_token(forward, whole, token, HostLanes(hidden, cuda::EMBEDDING_ROWS));
    }
    for (int64_t slice = 0; slice < slices; ++slice) {
        const HostLanes lanes(hidden, cuda::embedding_backward_rows(tables));
        cuda::embedding_slice(backward, whole, slice, slices, partial.data(), lanes);
    }
    const OrderByEntry by_word(ids, WORDS);
    const int64_t stride = (2 + TYPES) * hidden;
    const auto sums = [&](int64_t first, int64_t columns) {
        return column_sums(partial.data() + first, slices, stride, columns);
    };
    return near(our_moments, moments, 1e-6, "moments") && near(our_out, out, 1e-5, "embedding", drops) &&
           near(our_grad_sum, grad_sum, 1e-5, "the sum's gradient") &&
           near(sums(0, hidden), grad_weight, 1e-5, "weight's gradient") &&
           near(sums(hidden, hidden), grad_bias, 1e-5, "bias's gradient") &&
           near(sums(2 * hidden, TYPES * hidden), grad_type, 1e-5, "types' gradient") &&
           near(add_by_entry(TokensByEntry{by_word.order.data(), by_word.begin.data()}, WORDS, our_grad_sum, hidden,
                             whole, words_before),
                grad_word, 1e-5, "words' gradient") &&
           near(add_by_entry(TokensByPosition{places.cu_seqlens.data(), places.sequences()}, POSITIONS, our_grad_sum,
                             hidden, whole, positions_before),
                grad_position, 1e-5, "positions' gradient");
}

// An id beyond its table makes only its row NaN, and reads nothing out of bounds, which AddressSanitizer would report.
bool bad_ids_are_nan() {
    constexpr int64_t HIDDEN = 12;
    const std::vector<float> table(2 * HIDDEN, 1.0f), weight(HIDDEN, 1.0f);
    const std::vector<int64_t> good(1, 1), row_keys(1, 0);
    bool fine = true;
    for (const int64_t id : {int64_t{-1}, int64_t{1}, int64_t{2}, INT64_MIN, INT64_MAX}) {
        for (int which = 0; which < 3; ++which) {
            const std::vector<int64_t> bad(1, id);
            const auto ids = [&](int number) { return (number == which ? bad : good).data(); };
            const EmbeddingTables tables = {ids(0), ids(1), ids(2), table.data(), table.data(), table.data(), 2,
                                            2,      2,      1,      HIDDEN};
            auto memory = poisoned<float>(cuda::warp_floats(HIDDEN, 1));
            every_thread(cuda::WARP, [&](int lane) { cuda::add_up(tables, true, 0, {memory.data(), HIDDEN, lane}); });
            const float first = cuda::WarpRows{memory.data(), HIDDEN, 0}.row(0)[0];
            fine &= id == 1 ? first == 3.0f : std::isnan(first);
        }
    }
    if (!fine) std::printf("an id out of range is not NaN\n");
    return fine;
}

template <typename T>
bool all() {
    bool good = true;
    for (const int64_t columns : {1, 2, 7, 33, 64, 130, 768}) {
        for (const int64_t rows : {0, 1, 5, 70}) {
            for (const int64_t slices : {1, 3, 40}) {
                for (const bool whole : {false, columns % 4 == 0}) {
                    // In rows of two the gradients almost cancel.
                    const bool fine = gelu<T>(rows, columns, slices, whole) &&
                                      (columns <= 2 || (layer_norm<T>(rows, columns, slices, whole, false) &&
                                                        layer_norm<T>(rows, columns, slices, whole, true) &&
                                                        embedding<T>(rows, columns, slices, whole, rows % 2 == 0)));
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
    return bad_ids_are_nan() & all<float>() & all<bfloat16>() ? 0 : 1;
}
