// The sampler: checks a corpus and its options once, then makes plans and batches.

#include <stdexcept>
#include <string>

#include "bindings/module.h"
#include "bindings/run.h"
#include "core/sampling/batch.h"
#include "core/sampling/corpus.h"
#include "core/sampling/masking.h"
#include "core/sampling/sampler_options.h"
#include "core/sampling/sentence_pair.h"

namespace bertfast::bindings {

namespace {

constexpr int64_t EXAMPLE_FIELDS = sizeof(Example) / sizeof(int64_t);

Objective objective_of(const std::string& name) {
    if (name == "nsp") return Objective::nsp;
    if (name == "sop") return Objective::sop;
    if (name == "none") return Objective::none;
    throw py::value_error("unknown objective: " + name);
}

Masking masking_of(const std::string& name) {
    if (name == "token") return Masking::token;
    if (name == "whole_word") return Masking::whole_word;
    if (name == "span") return Masking::span;
    throw py::value_error("unknown masking: " + name);
}

SamplerOptions make_options(uint64_t seed, const std::string& objective, int32_t max_len, bool any_negative, bool drop,
                            bool fill, const std::string& masking, uint64_t short_below, int64_t mask_millionths,
                            uint64_t mask_below, uint64_t random_below, int32_t vocab_size, int32_t pad, int32_t cls,
                            int32_t sep, int32_t mask, const py::sequence& specials) {
    SamplerOptions options = {};
    options.seed = seed;
    options.objective = objective_of(objective);
    options.max_len = max_len;
    options.any_negative = any_negative;
    options.drop = drop;
    options.fill = fill;
    options.masking = masking_of(masking);
    options.short_below = short_below;
    options.mask_millionths = mask_millionths;
    options.mask_below = mask_below;
    options.random_below = random_below;
    options.vocab_size = vocab_size;
    options.pad = pad;
    options.cls = cls;
    options.sep = sep;
    options.mask = mask;
    if (max_len < 5 || max_len > 1 << 16) throw py::value_error("max_len must be in [5, 65536]");
    if (mask_millionths < 0 || mask_millionths > 1000000)
        throw py::value_error("mask_millionths must be in [0, 1000000]");
    constexpr uint64_t whole = uint64_t{1} << 32;
    if (short_below > whole || random_below > whole || mask_below > random_below) {
        throw py::value_error(
            "short_below, mask_below and random_below must be in [0, 2^32], mask_below <= random_below");
    }
    if (specials.size() > SamplerOptions::MAX_SPECIALS) throw py::value_error("too many special tokens");
    for (const py::handle id : specials) options.specials[options.num_specials++] = id.cast<int32_t>();
    if (vocab_size <= options.num_specials) throw py::value_error("every token of the vocabulary is special");
    for (int i = 0; i < options.num_specials; ++i) {
        if (options.specials[i] < 0 || options.specials[i] >= vocab_size ||
            (i > 0 && options.specials[i] <= options.specials[i - 1])) {
            throw py::value_error("specials must be ids of the vocabulary, ascending");
        }
    }
    for (const int32_t id : {pad, cls, sep, mask}) {
        if (id < 0 || id >= vocab_size) throw py::value_error("pad, cls, sep and mask must be ids of the vocabulary");
    }
    return options;
}

// Raises ValueError unless `offsets`, on the CPU, ascend from 0 to `end` without an empty part: the kernels follow them
// unchecked.
void check_offsets(const Tensor& offsets, int64_t end) {
    const int64_t* const offset = offsets.data<int64_t>();
    const int64_t parts = offsets.size(0) - 1;
    bool ascend = parts >= 0 && offset[0] == 0 && offset[parts] == end;
    for (int64_t i = 0; ascend && i < parts; ++i) ascend = offset[i] < offset[i + 1];
    if (!ascend) throw py::value_error(offsets.name() + " must ascend from 0 to " + std::to_string(end));
}

// Raises ValueError unless `table` is on the device of `other` or, for a CUDA device, in pinned host memory: under
// unified addressing the device reads that at its host address.
const Tensor& require_readable(const Tensor& table, py::handle object, const Tensor& other) {
    const bool mapped = other.device().cuda && !table.device().cuda && object.attr("is_pinned")().cast<bool>();
    return mapped ? table : table.require_same_device(other);
}

class Sampler {
  public:
    // Every tensor is on the device of `document_offsets`, or, if it is large, in pinned host memory. This object keeps
    // them alive. On the CPU, indices that lead outside of them are refused here. On a CUDA device, where reading them
    // would stop the stream, the caller has checked a copy on the host.
    Sampler(const SamplerOptions& options, py::object tokens, py::object sentence_offsets, py::object document_offsets,
            py::object anchors, py::object continuation)
        : keep_alive_(py::make_tuple(tokens, sentence_offsets, document_offsets, anchors, continuation)),
          options_(options) {
        const Tensor ids(tokens, "tokens", {Dtype::uint16, Dtype::uint32}, {ANY});
        const Tensor sentences(sentence_offsets, "sentence_offsets", {Dtype::int64}, {ANY});
        const Tensor documents(document_offsets, "document_offsets", {Dtype::int64}, {ANY});
        device_ = documents.device();
        corpus_.tokens = require_readable(ids, tokens, documents).data<void>();
        corpus_.token_bytes = ids.dtype() == Dtype::uint16 ? 2 : 4;
        corpus_.sentence_offsets = require_readable(sentences, sentence_offsets, documents).data<int64_t>();
        corpus_.document_offsets = documents.data<int64_t>();
        if (!device_.cuda) {
            check_offsets(sentences, ids.size(0));
            check_offsets(documents, sentences.size(0) - 1);
        }
        corpus_.num_sentences = sentences.size(0) - 1;
        corpus_.num_documents = documents.size(0) - 1;
        corpus_.num_anchors = corpus_.num_sentences;
        if (options.objective != Objective::none) corpus_.num_anchors -= corpus_.num_documents;
        if (!anchors.is_none()) {
            const Tensor table(anchors, "anchors", {Dtype::int64}, {ANY});
            corpus_.anchors = require_readable(table, anchors, documents).data<int64_t>();
            for (int64_t i = 0; !device_.cuda && i < table.size(0); ++i) {
                if (corpus_.anchors[i] < 0 || corpus_.anchors[i] >= corpus_.num_anchors) {
                    throw py::value_error("anchors must be below " + std::to_string(corpus_.num_anchors));
                }
            }
            corpus_.num_anchors = table.size(0);
        }
        if (!continuation.is_none()) {
            const Tensor table(continuation, "continuation", {Dtype::uint8}, {options.vocab_size});
            corpus_.continuation = table.require_same_device(documents).data<uint8_t>();
        }
        if (device_.cuda && !HAS_CUDA) throw_no_cuda("sampler");
        if (corpus_.num_documents < 1 || corpus_.num_anchors < 1) throw py::value_error("the corpus has no examples");
        if (masks_words(options) != (corpus_.continuation != nullptr)) {
            throw py::value_error("the table `continuation` belongs to masking 'whole_word' and 'span'");
        }
        if (options.objective == Objective::nsp && !options.any_negative && corpus_.num_documents < 2) {
            throw py::value_error("a corpus of one document has no other to draw a negative from");
        }
    }

    int64_t num_examples() const { return corpus_.num_anchors; }

    void plan(py::handle first_, py::handle examples_, py::handle cu_seqlens_, py::handle cu_masked_) const {
        const Tensor first = first_example(first_), examples = example_table(examples_, first);
        const int64_t count = examples.size(0);
        const Tensor cu_seqlens(cu_seqlens_, "cu_seqlens", Dtype::int32, {count + 1}, first);
        const Tensor cu_masked(cu_masked_, "cu_masked", Dtype::int32, {count + 1}, first);
        check_no_overlap({&examples, &cu_seqlens, &cu_masked}, {&first});
        const int64_t* const g = first.data<int64_t>();
        Example* const rows = examples.data<Example>();
        int32_t *const tokens = cu_seqlens.data<int32_t>(), *const predictions = cu_masked.data<int32_t>();
        BERTFAST_RUN(device_, plan(corpus_, options_, *g, count, rows, tokens, predictions),
                     plan(corpus_, options_, g, count, rows, tokens, predictions, first.device().stream));
    }

    // Fills the tensors of `batch`, a PackedBatch.
    void packed(py::handle first_, py::handle examples_, py::handle batch) const {
        const Tensor first = first_example(first_), examples = example_table(examples_, first);
        const int64_t count = examples.size(0);
        const auto field = [&](const char* name, Dtype dtype, int64_t size) {
            return Tensor(batch.attr(name), name, dtype, {size}, first);
        };
        const Tensor ids = field("input_ids", Dtype::int64, ANY), labels = field("labels", Dtype::int64, ANY);
        const int64_t tokens = ids.size(0), predictions = labels.size(0);
        const Tensor cu_seqlens = field("cu_seqlens", Dtype::int32, count + 1);
        const Tensor cu_masked = field("cu_masked", Dtype::int32, count + 1);
        const Tensor types = field("token_type_ids", Dtype::int64, tokens);
        const Tensor positions = field("position_ids", Dtype::int64, tokens);
        const Tensor row_keys = field("row_keys", Dtype::int64, tokens);
        const Tensor masked = field("masked_positions", Dtype::int64, predictions);
        const Tensor next = field("next_sentence_label", Dtype::int64, pairs() ? count : 0);
        check_no_overlap({&ids, &types, &positions, &row_keys, &masked, &labels, &next},
                         {&first, &examples, &cu_seqlens, &cu_masked});
        if (!device_.cuda) {
            check_examples(examples);
            check_plan(examples, cu_seqlens.data<int32_t>(), cu_masked.data<int32_t>(), tokens, predictions);
        }
        Batch out = {};
        out.cu_seqlens = cu_seqlens.data<int32_t>();
        out.cu_masked = cu_masked.data<int32_t>();
        out.input_ids = ids.data<int64_t>();
        out.token_type_ids = types.data<int64_t>();
        out.position_ids = positions.data<int64_t>();
        out.row_keys = row_keys.data<int64_t>();
        out.masked_positions = masked.data<int64_t>();
        out.labels = labels.data<int64_t>();
        out.next_sentence_label = pairs() ? next.data<int64_t>() : nullptr;
        sample(first, examples, out);
    }

    // Fills the tensors of `batch`, a PaddedBatch.
    void padded(py::handle first_, py::handle examples_, py::handle batch) const {
        const Tensor first = first_example(first_), examples = example_table(examples_, first);
        const int64_t count = examples.size(0), most = max_predictions();
        const auto field = [&](const char* name, Dtype dtype, int64_t columns) {
            return Tensor(batch.attr(name), name, dtype, {count, columns}, first);
        };
        const Tensor ids = field("input_ids", Dtype::int64, options_.max_len);
        const Tensor types = field("token_type_ids", Dtype::int64, options_.max_len);
        const Tensor attention_mask = field("attention_mask", Dtype::int64, options_.max_len);
        const Tensor masked = field("masked_positions", Dtype::int64, most);
        const Tensor labels = field("labels", Dtype::int64, most);
        const Tensor weights = field("mlm_weights", Dtype::float32, most);
        const Tensor next(batch.attr("next_sentence_label"), "next_sentence_label", Dtype::int64, {pairs() ? count : 0},
                          first);
        check_no_overlap({&ids, &types, &attention_mask, &masked, &labels, &weights, &next}, {&first, &examples});
        if (!device_.cuda) check_examples(examples);
        Batch out = {};
        out.max_len = options_.max_len;
        out.max_predictions = most;
        out.input_ids = ids.data<int64_t>();
        out.token_type_ids = types.data<int64_t>();
        out.attention_mask = attention_mask.data<int64_t>();
        out.masked_positions = masked.data<int64_t>();
        out.labels = labels.data<int64_t>();
        out.mlm_weights = weights.data<float>();
        out.next_sentence_label = pairs() ? next.data<int64_t>() : nullptr;
        sample(first, examples, out);
    }

    int64_t max_predictions() const { return bertfast::max_predictions(options_); }

  private:
    // The first example's number is a tensor, so that a captured CUDA graph serves every step.
    Tensor first_example(py::handle first) const {
        const Tensor tensor(first, "first_example", {Dtype::int64}, {1});
        if (!(tensor.device() == device_)) throw py::value_error("first_example must be on the corpus's device");
        return tensor;
    }

    Tensor example_table(py::handle examples, const Tensor& first) const {
        const Tensor tensor(examples, "examples", {Dtype::int64}, {ANY, EXAMPLE_FIELDS});
        if (tensor.size(0) > INT32_MAX / options_.max_len) {
            throw py::value_error("a batch holds fewer than 2^31 tokens");
        }
        return tensor.require_same_device(first);
    }

    bool pairs() const { return options_.objective != Objective::none; }

    // Checks that this sampler could have planned the table's examples: each is within the corpus and max_len.
    void check_examples(const Tensor& examples) const {
        const int64_t tokens = corpus_.sentence_offsets[corpus_.num_sentences], max_len = options_.max_len;
        const auto inside = [=](int64_t begin, int64_t size) {
            return begin >= 0 && size > 0 && size <= max_len && begin <= tokens - size;
        };
        for (int64_t i = 0; i < examples.size(0); ++i) {
            const Example& example = examples.data<Example>()[i];
            if (!inside(example.a_begin, example.a_len) ||
                !(pairs() ? inside(example.b_begin, example.b_len) : example.b_len == 0) || length(example) > max_len) {
                throw py::value_error("examples[" + std::to_string(i) + "] is not an example of this corpus");
            }
        }
    }

    // Checks that a packed batch's offsets are those of its examples, and that its tensors have room for them. The
    // number of predictions is checked when they are made.
    static void check_plan(const Tensor& examples, const int32_t* cu_seqlens, const int32_t* cu_masked, int64_t tokens,
                           int64_t predictions) {
        const int64_t count = examples.size(0);
        bool fits =
            cu_seqlens[0] == 0 && cu_masked[0] == 0 && cu_seqlens[count] <= tokens && cu_masked[count] <= predictions;
        for (int64_t i = 0; fits && i < count; ++i) {
            fits = int64_t{cu_seqlens[i]} + length(examples.data<Example>()[i]) == cu_seqlens[i + 1] &&
                   cu_masked[i] <= cu_masked[i + 1];
        }
        if (!fits) throw py::value_error("input_ids, labels and their offsets must have room for what the plan says");
    }

    void sample(const Tensor& first, const Tensor& examples, const Batch& batch) const {
        const int64_t* const g = first.data<int64_t>();
        const int64_t count = examples.size(0);
        const Example* const rows = examples.data<Example>();
        BERTFAST_RUN(device_, sample(corpus_, options_, *g, count, rows, batch),
                     sample(corpus_, options_, g, count, rows, batch, first.device().stream));
    }

    py::tuple keep_alive_;
    SamplerOptions options_;
    Corpus corpus_ = {};
    Device device_;
};

}  // namespace

void bind_sampler(py::module_& module) {
    module.attr("EXAMPLE_FIELDS") = EXAMPLE_FIELDS;
    py::class_<SamplerOptions>(module, "SamplerOptions")
        .def(py::init(&make_options), py::kw_only(), py::arg("seed"), py::arg("objective"), py::arg("max_len"),
             py::arg("any_negative"), py::arg("drop"), py::arg("fill"), py::arg("masking"), py::arg("short_below"),
             py::arg("mask_millionths"), py::arg("mask_below"), py::arg("random_below"), py::arg("vocab_size"),
             py::arg("pad"), py::arg("cls"), py::arg("sep"), py::arg("mask"), py::arg("specials"));
    py::class_<Sampler>(module, "Sampler")
        .def(py::init<const SamplerOptions&, py::object, py::object, py::object, py::object, py::object>(),
             py::arg("options"), py::arg("tokens"), py::arg("sentence_offsets"), py::arg("document_offsets"),
             py::arg("anchors") = py::none(), py::arg("continuation") = py::none())
        .def_property_readonly("num_examples", &Sampler::num_examples)
        .def_property_readonly("max_predictions", &Sampler::max_predictions)
        .def("plan", &Sampler::plan, py::arg("first_example"), py::arg("examples"), py::arg("cu_seqlens"),
             py::arg("cu_masked"))
        .def("packed", &Sampler::packed, py::arg("first_example"), py::arg("examples"), py::arg("batch"))
        .def("padded", &Sampler::padded, py::arg("first_example"), py::arg("examples"), py::arg("batch"));
}

}  // namespace bertfast::bindings
