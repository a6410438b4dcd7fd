// Launches every CUDA kernel on small, odd sizes and compares with the CPU's: the sampler byte for byte, the others
// within rounding. All outputs and working memory are poisoned before.
#include <cmath>
#include <cstdio>
#include <string>

#include "cpu/kernels.h"
#include "cuda/launchers.h"
#include "device.h"
#include "kernel_inputs.h"
#include "sampler_harness.h"

using namespace bertfast;
using device::Array;

namespace {

constexpr float EPS = 1e-12f;
constexpr int64_t SLICES = 3;  // in the sums over rows

std::mt19937 numbers(1);
int compared = 0, wrong = 0;

void expect(bool good, const std::string& what) {
    ++compared;
    if (good) return;
    ++wrong;
    std::printf("%s differs\n", what.c_str());
}

// Checks that all numbers are within `relative` times the largest expected one, as sums of rounded numbers are. A NaN
// fails.
template <typename T>
void near(const std::vector<T>& got, const std::vector<float>& expected, float relative, const std::string& what) {
    float largest = 1e-3f, error = 0;
    for (const float each : expected) largest = std::fmax(largest, std::fabs(each));
    bool all_numbers = got.size() == expected.size();
    for (size_t i = 0; all_numbers && i < got.size(); ++i) {
        const float difference = std::fabs(to_float(got[i]) - expected[i]);
        all_numbers = difference == difference;
        error = std::fmax(error, difference);
    }
    expect(all_numbers && error <= relative * largest,
           what + (all_numbers ? ": by " + std::to_string(error) + " of " + std::to_string(largest) : ": not written"));
}

// Normally distributed numbers that are exact in bfloat16, so that both types compare with the CPU's float32 results.
std::vector<float> floats(int64_t count) {
    return floats_of(random_floats<bfloat16>(count, numbers));
}

std::vector<int64_t> ints(int64_t count, int64_t below) {
    return random_ints(count, numbers, below);
}

template <typename T>
std::vector<T> as(const std::vector<float>& values) {
    std::vector<T> cast(values.size());
    for (size_t i = 0; i < values.size(); ++i) from_float(values[i], cast[i]);
    return cast;
}

template <typename T>
const char* type() {
    return sizeof(T) == 2 ? ", bf16" : ", fp32";
}

// The tolerance of one result, in float32 or rounded to T.
template <typename T>
constexpr float TOLERANCE = sizeof(T) == 2 ? 0x1p-7f : 1e-5f;

template <typename T>
void compare_gelu(int64_t rows, int64_t columns) {
    const auto x = floats(rows * columns), bias = floats(columns), grad = floats(rows * columns);
    std::vector<float> out(x.size()), grad_x(x.size()), grad_bias(columns);
    BERTFAST_DISPATCH(bias_gelu(BiasGelu<float>{x.data(), bias.data(), rows, columns, out.data()}));
    BERTFAST_DISPATCH(bias_gelu_backward(
        BiasGeluBackward<float>{grad.data(), x.data(), bias.data(), rows, columns, grad_x.data(), grad_bias.data()}));

    const Array<T> dx(as<T>(x)), dgrad(as<T>(grad)), dout(x.size()), dgrad_x(x.size());
    const Array<float> dbias(bias), dgrad_bias(columns), partial(SLICES * columns);
    cuda::bias_gelu(BiasGelu<T>{dx.data(), dbias.data(), rows, columns, dout.data()}, nullptr);
    cuda::bias_gelu_backward(
        BiasGeluBackward<T>{dgrad.data(), dx.data(), dbias.data(), rows, columns, dgrad_x.data(), dgrad_bias.data()},
        partial.data(), SLICES, nullptr);
    const std::string what = "bias_gelu of " + std::to_string(rows) + " x " + std::to_string(columns) + type<T>();
    near(dout.values(), out, TOLERANCE<T>, what);
    near(dgrad_x.values(), grad_x, TOLERANCE<T>, what + ", grad_x");
    near(dgrad_bias.values(), grad_bias, TOLERANCE<T>, what + ", grad_bias");
}

template <typename T>
void compare_layer_norm(int64_t rows, int64_t columns) {
    const auto x = floats(rows * columns), residual = floats(rows * columns), grad = floats(rows * columns);
    const auto weight = floats(columns), bias = floats(columns);
    const auto row_keys = ints(rows, 1 << 30);
    const Dropout rule = make_dropout(0.3, 11, 256 * 5);
    std::vector<float> out(x.size()), moments(2 * rows), grad_x(x.size()), grad_residual(x.size());
    std::vector<float> grad_weight(columns), grad_bias(columns);
    BERTFAST_DISPATCH(dropout_add_layer_norm(DropoutAddLayerNorm<float>{x.data(), residual.data(), weight.data(),
                                                                        bias.data(), EPS, row_keys.data(), rule, rows,
                                                                        columns, out.data(), moments.data()}));
    BERTFAST_DISPATCH(dropout_add_layer_norm_backward(DropoutAddLayerNormBackward<float>{
        grad.data(), x.data(), residual.data(), weight.data(), moments.data(), row_keys.data(), rule, rows, columns,
        grad_x.data(), grad_residual.data(), grad_weight.data(), grad_bias.data()}));

    const Array<T> dx(as<T>(x)), dresidual(as<T>(residual)), dgrad(as<T>(grad));
    const Array<T> dout(x.size()), dgrad_x(x.size()), dgrad_residual(x.size());
    const Array<float> dweight(weight), dbias(bias), dmoments(2 * rows), dgrad_weight(columns), dgrad_bias(columns);
    const Array<float> partial(SLICES * 2 * columns);
    const Array<int64_t> keys(row_keys);
    cuda::dropout_add_layer_norm(DropoutAddLayerNorm<T>{dx.data(), dresidual.data(), dweight.data(), dbias.data(), EPS,
                                                        keys.data(), rule, rows, columns, dout.data(), dmoments.data()},
                                 nullptr);
    cuda::dropout_add_layer_norm_backward(
        DropoutAddLayerNormBackward<T>{dgrad.data(), dx.data(), dresidual.data(), dweight.data(), dmoments.data(),
                                       keys.data(), rule, rows, columns, dgrad_x.data(), dgrad_residual.data(),
                                       dgrad_weight.data(), dgrad_bias.data()},
        partial.data(), SLICES, nullptr);
    const std::string what =
        "dropout_add_layer_norm of " + std::to_string(rows) + " x " + std::to_string(columns) + type<T>();
    near(dout.values(), out, TOLERANCE<T>, what);
    near(dmoments.values(), moments, TOLERANCE<float>, what + ", moments");
    near(dgrad_x.values(), grad_x, TOLERANCE<T>, what + ", grad_x");
    near(dgrad_residual.values(), grad_residual, TOLERANCE<T>, what + ", grad_residual");
    near(dgrad_weight.values(), grad_weight, TOLERANCE<float>, what + ", grad_weight");
    near(dgrad_bias.values(), grad_bias, TOLERANCE<float>, what + ", grad_bias");
}

struct ByEntry {
    Array<int64_t> order, begin;
    TokensByEntry addresses;

    explicit ByEntry(const OrderByEntry& on_host)
        : order(on_host.order), begin(on_host.begin), addresses{order.data(), begin.data()} {}
};

template <typename T>
void compare_embedding(int64_t tokens, int64_t hidden, int64_t words, int64_t positions) {
    constexpr int64_t TYPES = 2;
    const auto ids = ints(tokens, words), types = ints(tokens, TYPES);
    const Places places(tokens, positions, numbers);
    const auto word = floats(words * hidden), kind = floats(TYPES * hidden), position = floats(positions * hidden);
    const auto weight = floats(hidden), bias = floats(hidden), grad = floats(tokens * hidden);
    const auto row_keys = ints(tokens, 1 << 30);
    const Dropout rule = make_dropout(0.1, 12, 0);
    const EmbeddingTables tables = {ids.data(),  types.data(), places.positions.data(),
                                    word.data(), kind.data(),  position.data(),
                                    words,       TYPES,        positions,
                                    tokens,      hidden};
    std::vector<float> out(tokens * hidden), moments(2 * tokens), grad_sum(tokens * hidden), grad_type(kind.size());
    std::vector<float> grad_weight(hidden), grad_bias(hidden);
    auto grad_word = floats(word.size()), grad_position = floats(position.size());
    const Array<float> dgrad_word(grad_word), dgrad_position(grad_position);
    BERTFAST_DISPATCH(embedding_layer_norm(EmbeddingLayerNorm<float>{
        tables, weight.data(), bias.data(), EPS, row_keys.data(), rule, out.data(), moments.data()}));
    BERTFAST_DISPATCH(embedding_layer_norm_backward(EmbeddingLayerNormBackward<float>{
        grad.data(), tables, weight.data(), moments.data(), row_keys.data(), rule, grad_sum.data(), grad_word.data(),
        grad_type.data(), grad_position.data(), grad_weight.data(), grad_bias.data()}));

    const Array<int64_t> dids(ids), dtypes(types), dplaces(places.positions), keys(row_keys);
    const Array<int32_t> dcu_seqlens(places.cu_seqlens);
    const Array<float> dword(word), dkind(kind), dposition(position), dweight(weight), dbias(bias);
    const EmbeddingTables on_device = {dids.data(),  dtypes.data(),    dplaces.data(), dword.data(),
                                       dkind.data(), dposition.data(), words,          TYPES,
                                       positions,    tokens,           hidden};
    const Array<T> dgrad(as<T>(grad)), dout(tokens * hidden);
    const Array<float> dmoments(2 * tokens), dgrad_sum(tokens * hidden);
    const Array<float> dgrad_type(kind.size()), dgrad_weight(hidden), dgrad_bias(hidden),
        partial(SLICES * (2 + TYPES) * hidden);
    const ByEntry by_word(OrderByEntry(ids, words));
    cuda::embedding_layer_norm(EmbeddingLayerNorm<T>{on_device, dweight.data(), dbias.data(), EPS, keys.data(), rule,
                                                     dout.data(), dmoments.data()},
                               nullptr);
    cuda::embedding_layer_norm_backward(
        EmbeddingLayerNormBackward<T>{dgrad.data(), on_device, dweight.data(), dmoments.data(), keys.data(), rule,
                                      dgrad_sum.data(), dgrad_word.data(), dgrad_type.data(), dgrad_position.data(),
                                      dgrad_weight.data(), dgrad_bias.data()},
        by_word.addresses, {dcu_seqlens.data(), places.sequences()}, partial.data(), SLICES, nullptr);
    const std::string what =
        "embedding_layer_norm of " + std::to_string(tokens) + " x " + std::to_string(hidden) + type<T>();
    near(dout.values(), out, TOLERANCE<T>, what);
    near(dmoments.values(), moments, TOLERANCE<float>, what + ", moments");
    near(dgrad_word.values(), grad_word, TOLERANCE<float>, what + ", grad_word");
    near(dgrad_type.values(), grad_type, TOLERANCE<float>, what + ", grad_type");
    near(dgrad_position.values(), grad_position, TOLERANCE<float>, what + ", grad_position");
    near(dgrad_weight.values(), grad_weight, TOLERANCE<float>, what + ", grad_weight");
    near(dgrad_bias.values(), grad_bias, TOLERANCE<float>, what + ", grad_bias");
}

template <typename T>
void compare_attention(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads,
                       int64_t width) {
    const PackedSequences sequences(queries, keys);
    const int64_t query_size = sequences.query_size(heads, width);
    const int64_t key_size = sequences.key_value_size(heads, width);
    const auto query = floats(query_size), grad = floats(query_size), key_value = floats(key_size);
    const auto row_keys = ints(sequences.cu_queries.back(), 1 << 30);
    AttentionShape shape = sequences.shape(heads, width, row_keys);
    std::vector<float> out(query_size), log_sum_exp(sequences.cu_queries.back() * heads);
    std::vector<float> grad_query(query_size), grad_key_value(key_size);
    BERTFAST_DISPATCH(
        attention(shape, AttentionForward<float>{query.data(), key_value.data(), out.data(), log_sum_exp.data()}));
    BERTFAST_DISPATCH(attention_backward(
        shape, AttentionBackward<float>{grad.data(), query.data(), key_value.data(), log_sum_exp.data(),
                                        grad_query.data(), grad_key_value.data()}));

    const Array<int32_t> dcu_queries(sequences.cu_queries), dcu_keys(sequences.cu_keys);
    const Array<int64_t> dkeys(row_keys);
    shape.cu_seqlens_q = dcu_queries.data();
    shape.cu_seqlens_k = dcu_keys.data();
    shape.row_keys = dkeys.data();
    const Array<T> dquery(as<T>(query)), dgrad(as<T>(grad)), dkey_value(as<T>(key_value));
    const Array<T> dout(query_size), dgrad_query(query_size), dgrad_key_value(key_size);
    const Array<float> dlog_sum_exp(log_sum_exp.size());
    cuda::attention(shape, AttentionForward<T>{dquery.data(), dkey_value.data(), dout.data(), dlog_sum_exp.data()},
                    nullptr);
    cuda::attention_backward(shape,
                             AttentionBackward<T>{dgrad.data(), dquery.data(), dkey_value.data(), dlog_sum_exp.data(),
                                                  dgrad_query.data(), dgrad_key_value.data()},
                             nullptr);
    const std::string what = "attention with " + std::to_string(heads) + " heads of " + std::to_string(width) +
                             ", up to " + std::to_string(sequences.longest) + " tokens" + type<T>();
    const float tolerance = 2 * TOLERANCE<T>;  // bf16: the probabilities are rounded too
    near(dout.values(), out, tolerance, what);
    near(dlog_sum_exp.values(), log_sum_exp, TOLERANCE<float>, what + ", log_sum_exp");
    near(dgrad_query.values(), grad_query, tolerance, what + ", grad_query");
    near(dgrad_key_value.values(), grad_key_value, tolerance, what + ", grad_key_value");
}

void compare_adam(const std::vector<int64_t>& sizes, bool refused) {
    AdamState state(sizes, numbers, refused);
    const Array<float> parameters(state.parameters), gradients(state.gradients), exp_avgs(state.exp_avgs);
    const Array<float> exp_avg_sqs(state.exp_avg_sqs), rule(state.rule);
    const Array<bfloat16> copies(state.copies);
    const auto tensors = AdamState::tensors(sizes, parameters.data(), gradients.data(), exp_avgs.data(),
                                            exp_avg_sqs.data(), copies.data());
    cuda::adam(tensors.data(), static_cast<int64_t>(tensors.size()), AdamState::rule_at(rule.data()), nullptr);
    const std::vector<float> before = state.parameters;
    state.take([](auto... arguments) { BERTFAST_DISPATCH(adam(arguments...)); });
    const std::string what = "adam of " + std::to_string(sizes.size()) + " tensors" + (refused ? ", refused" : "");
    if (refused) expect(same_bytes(parameters.values(), before), what + ", parameters as they were");
    near(parameters.values(), state.parameters, TOLERANCE<float>, what);
    near(exp_avgs.values(), state.exp_avgs, TOLERANCE<float>, what + ", exp_avgs");
    near(exp_avg_sqs.values(), state.exp_avg_sqs, TOLERANCE<float>, what + ", exp_avg_sqs");
    near(copies.values(), floats_of(state.copies), TOLERANCE<bfloat16>, what + ", copies");
}

template <typename T>
void compare_mlm_loss(int64_t rows, int64_t columns, int64_t vocab_size) {
    const auto logits = floats(rows * columns), bias = floats(columns);
    auto weights = floats(rows);
    weights[rows / 2] = 0;
    const auto labels = ints(rows, vocab_size);
    std::vector<float> gradients = logits, losses(rows), bias_gradient(SLICES * columns);
    BERTFAST_DISPATCH(mlm_loss(MlmLossChunk<float>{gradients.data(), bias.data(), labels.data(), weights.data(), rows,
                                                   columns, vocab_size, losses.data(), bias_gradient.data(), SLICES}));

    const Array<T> dgradients(as<T>(logits)), untouched(as<T>(logits));
    const Array<float> dbias(bias), dweights(weights), dlosses(rows), losses_alone(rows);
    const Array<float> dbias_gradient(std::vector<float>(SLICES * columns));
    const Array<int64_t> dlabels(labels);
    cuda::mlm_loss(MlmLossChunk<T>{dgradients.data(), dbias.data(), dlabels.data(), dweights.data(), rows, columns,
                                   vocab_size, dlosses.data(), dbias_gradient.data(), SLICES},
                   nullptr);
    cuda::mlm_loss(MlmLossChunk<T>{untouched.data(), dbias.data(), dlabels.data(), dweights.data(), rows, columns,
                                   vocab_size, losses_alone.data(), nullptr, SLICES},
                   nullptr);
    const std::string what = "mlm_loss of " + std::to_string(rows) + " x " + std::to_string(vocab_size) + type<T>();
    near(dlosses.values(), losses, TOLERANCE<float>, what);
    near(losses_alone.values(), losses, TOLERANCE<float>, what + ", alone");
    expect(same_bytes(untouched.values(), as<T>(logits)), what + ", alone: the logits");
    near(dgradients.values(), gradients, TOLERANCE<T>, what + ", gradients");
    near(dbias_gradient.values(), bias_gradient, TOLERANCE<T>, what + ", bias gradient");
}

// Compares with the CPU's kernel on logits computed here, and with products of its gradients.
void compare_fused_mlm_loss(int64_t count, int64_t hidden, int64_t vocab_size, int64_t padded_vocab, int64_t splits,
                            bool gathers) {
    const int64_t sources = gathers ? count + 3 : count, columns = (vocab_size + 7) / 8 * 8;
    const auto rows = floats(sources * hidden), decoder = floats(padded_vocab * hidden), grad = floats(1);
    auto bias = floats(std::max(columns, padded_vocab)), weights = floats(count);
    weights[count / 2] = 0;
    weights[count - 1] = 0;
    const auto labels = ints(count, vocab_size);
    std::vector<int64_t> positions;
    for (int64_t row = 0; row < count; ++row) positions.push_back(gathers ? count + 2 - row : row);
    std::vector<float> logits(count * columns), losses(count), bias_gradient(columns);
    for (int64_t row = 0; row < count; ++row) {
        for (int64_t word = 0; word < vocab_size; ++word) {
            double x = 0;
            for (int64_t d = 0; d < hidden; ++d) {
                x += double{rows[positions[row] * hidden + d]} * decoder[word * hidden + d];
            }
            logits[row * columns + word] = static_cast<float>(x);
        }
    }
    BERTFAST_DISPATCH(mlm_loss(MlmLossChunk<float>{logits.data(), bias.data(), labels.data(), weights.data(), count,
                                                   columns, vocab_size, losses.data(), bias_gradient.data(), 1}));
    std::vector<float> grad_rows(rows.size()), grad_decoder(decoder.size());
    for (int64_t row = 0; row < count; ++row) {
        for (int64_t word = 0; word < vocab_size; ++word) {
            const float gradient = grad[0] * logits[row * columns + word];
            for (int64_t d = 0; d < hidden; ++d) {
                grad_rows[positions[row] * hidden + d] += gradient * decoder[word * hidden + d];
                grad_decoder[word * hidden + d] += gradient * rows[positions[row] * hidden + d];
            }
        }
    }
    for (float& each : bias_gradient) each *= grad[0];
    bias_gradient.resize(padded_vocab);
    for (int64_t word = vocab_size; word < padded_vocab; ++word) bias_gradient[word] = 0;
    bias.resize(padded_vocab);

    const Array<bfloat16> drows(as<bfloat16>(rows)), ddecoder(as<bfloat16>(decoder));
    const Array<bfloat16> dgrad_rows(std::vector<bfloat16>(rows.size())), dgrad_decoder(decoder.size());
    const Array<float> dbias(bias), dweights(weights), dgrad(grad), dlosses(count), label_logits(count);
    const Array<float> sums(splits * count * hidden), dgrad_bias(padded_vocab);
    const Array<int64_t> dpositions(positions), dlabels(labels);
    const Array<LogSumExp> partial(splits * count);
    const Array<cuda::RowStatistics> statistics(count);
    const cuda::FusedMlmLoss call{drows.data(),    gathers ? dpositions.data() : nullptr,
                                  ddecoder.data(), dbias.data(),
                                  dlabels.data(),  dweights.data(),
                                  sources,         count,
                                  hidden,          padded_vocab,
                                  vocab_size,      splits};
    cuda::fused_mlm_loss({call, partial.data(), label_logits.data(), dlosses.data(), statistics.data()}, nullptr);
    cuda::fused_mlm_loss_backward({call, statistics.data(), dgrad.data(), sums.data(), dgrad_rows.data(),
                                   dgrad_decoder.data(), dgrad_bias.data()},
                                  nullptr);
    const std::string what = "fused_mlm_loss of " + std::to_string(count) + " x " + std::to_string(hidden) + " x " +
                             std::to_string(vocab_size);
    near(dlosses.values(), losses, TOLERANCE<float>, what);
    near(dgrad_rows.values(), grad_rows, TOLERANCE<bfloat16>, what + ", rows");
    near(dgrad_decoder.values(), grad_decoder, TOLERANCE<bfloat16>, what + ", decoder");
    near(dgrad_bias.values(), bias_gradient, 2 * TOLERANCE<float>, what + ", bias");
}

void compare_sampler(const SamplerText& text, const SamplerOptions& options, int64_t first, int64_t count, bool wide,
                     bool packed) {
    const Corpus corpus = text.corpus(options, wide);
    SamplerBuffers cpu(count);
    BERTFAST_DISPATCH(
        plan(corpus, options, first, count, cpu.examples.data(), cpu.cu_seqlens.data(), cpu.cu_masked.data()));
    cpu.allocate(options, packed);
    BERTFAST_DISPATCH(sample(corpus, options, first, count, cpu.examples.data(), cpu.batch));

    const Array<uint16_t> narrow(text.narrow);
    const Array<uint32_t> in_four_bytes(text.wide);
    const Array<int64_t> sentence_offsets(text.sentence_offsets), document_offsets(text.document_offsets);
    const Array<int64_t> fitting(text.fitting), number(std::vector<int64_t>{first});
    const Array<uint8_t> continuation(text.continuation);
    Corpus on_device = corpus;
    on_device.tokens = wide ? static_cast<const void*>(in_four_bytes.data()) : narrow.data();
    on_device.sentence_offsets = sentence_offsets.data();
    on_device.document_offsets = document_offsets.data();
    on_device.anchors = corpus.anchors ? fitting.data() : nullptr;
    on_device.continuation = corpus.continuation ? continuation.data() : nullptr;
    const Array<Example> examples(count);
    const Array<int32_t> cu_seqlens(count + 1), cu_masked(count + 1);
    const Array<int64_t> buffer(cpu.numbers.size());
    const Array<float> weights(cpu.weights.size());
    Batch batch = cpu.batch;
    const auto moved = [&](int64_t* address) {
        return address ? buffer.data() + (address - cpu.numbers.data()) : nullptr;
    };
    for (int64_t** field :
         {&batch.input_ids, &batch.token_type_ids, &batch.position_ids, &batch.row_keys, &batch.attention_mask,
          &batch.masked_positions, &batch.labels, &batch.next_sentence_label}) {
        *field = moved(*field);
    }
    batch.mlm_weights = batch.mlm_weights ? weights.data() : nullptr;
    batch.cu_seqlens = batch.cu_seqlens ? cu_seqlens.data() : nullptr;
    batch.cu_masked = batch.cu_masked ? cu_masked.data() : nullptr;
    cuda::plan(on_device, options, number.data(), count, examples.data(), cu_seqlens.data(), cu_masked.data(), nullptr);
    cuda::sample(on_device, options, number.data(), count, examples.data(), batch, nullptr);

    const std::string what = "sampler, " + std::to_string(count) + " examples of " + std::to_string(options.max_len);
    expect(same_bytes(examples.values(), cpu.examples), what + ": plan");
    expect(same_bytes(cu_seqlens.values(), cpu.cu_seqlens), what + ": cu_seqlens");
    expect(same_bytes(cu_masked.values(), cpu.cu_masked), what + ": cu_masked");
    if (!packed) expect(same_bytes(weights.values(), cpu.weights), what + ": mlm_weights");
    // Both buffers start with a value that no sampler writes: -7 here, -1 on the device.
    std::vector<int64_t> written = cpu.numbers;
    for (int64_t& each : written) each = each == -7 ? -1 : each;
    expect(same_bytes(buffer.values(), written), what + (packed ? ": packed batch" : ": padded batch"));
}

void compare_samplers() {
    const SamplerText text(numbers, 40);
    for (const Masking masking : {Masking::token, Masking::whole_word, Masking::span}) {
        for (const Objective objective : {Objective::nsp, Objective::sop, Objective::none}) {
            for (const int max_len : {5, 64, 300}) {
                SamplerOptions options = SamplerText::options();
                options.masking = masking;
                options.objective = objective;
                options.max_len = max_len;
                options.fill = max_len == 300;
                options.drop = max_len == 64 && objective == Objective::nsp;
                options.short_below = uint64_t{1} << 30;
                options.mask_millionths = 150000;
                options.mask_below = 3435973837;
                options.random_below = 3865470566;
                compare_sampler(text, options, (int64_t{1} << 33) - 7, 37, max_len == 64, objective == Objective::nsp);
                compare_sampler(text, options, 3, 1, max_len == 5, objective != Objective::nsp);
            }
        }
    }
}

template <typename T>
void compare_rows() {
    for (const int64_t columns : {1, 3, 64, 99, 128, 770}) {
        for (const int64_t rows : {1, 13}) {
            compare_gelu<T>(rows, columns);
            if (columns > 3) compare_layer_norm<T>(rows, columns);  // the deviation of so few may be nearly 0
        }
    }
}

template <typename T>
void compare_embeddings() {
    compare_embedding<T>(1, 64, 5, 3);
    compare_embedding<T>(70, 99, 17, 9);
    compare_embedding<T>(70, 128, 300, 64);
}

template <typename T>
void compare_attentions() {
    compare_attention<T>({1, 0, 10, 60}, {9, 11, 60, 50}, 2, 64);
    compare_attention<T>({1, 70, 129}, {3, 65, 130}, 3, 17);
    compare_attention<T>({128, 5}, {128, 5}, 1, 32);
}

template <typename T>
void compare_mlm_losses() {
    compare_mlm_loss<T>(1, 8, 7);
    compare_mlm_loss<T>(13, 136, 131);
    compare_mlm_loss<T>(5, 2176, 2049);
}

void compare_fused_mlm_losses() {
    compare_fused_mlm_loss(1, 8, 7, 7, 1, false);
    compare_fused_mlm_loss(131, 128, 200, 256, 3, true);
    compare_fused_mlm_loss(70, 256, 131, 192, 2, true);
    compare_fused_mlm_loss(300, 24, 130, 130, 5, true);
}

void compare_adams() {
    compare_adam({1, 4096, 0, 4097, 30}, false);
    compare_adam({8192, 12}, false);
    compare_adam({100, 7}, true);
    compare_adam(std::vector<int64_t>(161, 33), false);
}

struct Group {
    const char* name;
    void (*compare)();
};

const Group GROUPS[] = {
    {"rows-fp32", compare_rows<float>},
    {"rows-bf16", compare_rows<bfloat16>},
    {"embedding-fp32", compare_embeddings<float>},
    {"embedding-bf16", compare_embeddings<bfloat16>},
    {"attention-fp32", compare_attentions<float>},
    {"attention-bf16", compare_attentions<bfloat16>},
    {"mlm-loss-fp32", compare_mlm_losses<float>},
    {"mlm-loss-bf16", compare_mlm_losses<bfloat16>},
    {"fused-mlm-loss", compare_fused_mlm_losses},
    {"adam", compare_adams},
    {"sampler", compare_samplers},
};

}  // namespace

// device_self_test [GROUP | --list]: all groups, or one, so that a kernel that fails does not hide the others' results.
int main(int count, char** arguments) {
    const std::string wanted = count > 1 ? arguments[1] : "";
    if (wanted == "--list") {
        for (const Group& group : GROUPS) std::printf("%s\n", group.name);
        return 0;
    }
    device::require();
    for (const Group& group : GROUPS) {
        if (wanted.empty() || wanted == group.name) group.compare();
    }
    if (compared == 0) {
        std::printf("there is no group %s\n", wanted.c_str());
        return 2;
    }
    std::printf("%s: %d results compared, %d differ\n", device::name(), compared, wrong);
    return wrong ? 1 : 0;
}
