#include <limits>
#include <optional>
#include <string>

#include "bindings/module.h"
#include "bindings/run.h"

namespace bertfast::bindings {

namespace {

// The arguments of both the loss and its gradients.
struct Inputs {
    Tensor rows, decoder, bias, labels, weights;
    std::optional<Tensor> positions;

    Inputs(py::handle rows_, py::handle positions_, py::handle decoder_, py::handle bias_, py::handle labels_,
           py::handle weights_, int64_t vocab_size)
        : rows(rows_, "rows", {Dtype::bfloat16}, {ANY, ANY}),
          decoder(decoder_, "decoder", Dtype::bfloat16, {ANY, rows.size(1)}, rows),
          bias(bias_, "bias", Dtype::float32, {decoder.size(0)}, rows),
          labels(labels_, "labels", Dtype::int64, {positions_.is_none() ? rows.size(0) : ANY}, rows),
          weights(weights_, "weights", Dtype::float32, labels.shape(), rows) {
        if (!positions_.is_none()) positions.emplace(positions_, "positions", Dtype::int64, labels.shape(), rows);
        const int64_t hidden = rows.size(1);
        if (hidden < 8 || hidden % 8 != 0 || hidden > cuda::FUSED_MAX_HIDDEN) {
            throw py::value_error("the hidden size must be a multiple of 8, at most " +
                                  std::to_string(cuda::FUSED_MAX_HIDDEN));
        }
        if (vocab_size < 1 || vocab_size > decoder.size(0) || vocab_size > cuda::FUSED_MAX_VOCABULARY) {
            throw py::value_error("vocab_size must be in [1, rows of decoder], at most 2^24");
        }
        constexpr int64_t MAX_ROWS = std::numeric_limits<int32_t>::max();
        if (rows.size(0) > MAX_ROWS || labels.size(0) > MAX_ROWS)
            throw py::value_error("rows and labels must have fewer than 2^31 rows");
        check_aligned({&rows, &decoder});
    }

    cuda::FusedMlmLoss call(int64_t vocab_size, int64_t splits) const {
        if (!rows.device().cuda)
            throw py::value_error("rows must be on a CUDA device: the fused loss runs on no other");
        return {rows.data<bfloat16>(),
                positions ? positions->data<int64_t>() : nullptr,
                decoder.data<bfloat16>(),
                bias.data<float>(),
                labels.data<int64_t>(),
                weights.data<float>(),
                rows.size(0),
                labels.size(0),
                rows.size(1),
                decoder.size(0),
                vocab_size,
                splits};
    }

    void check_no_overlap_with(std::initializer_list<const Tensor*> written) const {
        check_no_overlap(written, {&rows, &decoder, &bias, &labels, &weights});
        if (positions) check_no_overlap(written, {&*positions});
    }
};

int64_t splits_of(const Tensor& partial) {
    if (partial.size(0) < 1) throw py::value_error("partial must have at least one split");
    return partial.size(0);
}

void fused_mlm_loss(py::handle rows, py::handle positions, py::handle decoder, py::handle bias, py::handle labels,
                    py::handle weights, int64_t vocab_size, py::handle partial_, py::handle label_logits_,
                    py::handle losses_, py::handle statistics_) {
    const Inputs inputs(rows, positions, decoder, bias, labels, weights, vocab_size);
    const int64_t count = inputs.labels.size(0);
    const Tensor partial(partial_, "partial", Dtype::float32, {ANY, count, 2}, inputs.rows);
    const Tensor label_logits(label_logits_, "label_logits", Dtype::float32, {count}, inputs.rows);
    const Tensor losses(losses_, "losses", Dtype::float32, {count}, inputs.rows);
    const Tensor statistics(statistics_, "statistics", Dtype::float32, {count, 4}, inputs.rows);
    inputs.check_no_overlap_with({&partial, &label_logits, &losses, &statistics});
    check_aligned({&partial, &statistics});
    const cuda::FusedMlmLossForward call{inputs.call(vocab_size, splits_of(partial)), partial.data<LogSumExp>(),
                                         label_logits.data<float>(), losses.data<float>(),
                                         statistics.data<cuda::RowStatistics>()};
    const py::gil_scoped_release unlocked;
    BERTFAST_LAUNCH(fused_mlm_loss(call, inputs.rows.device().stream));
}

void fused_mlm_loss_backward(py::handle rows, py::handle positions, py::handle decoder, py::handle bias,
                             py::handle labels, py::handle weights, int64_t vocab_size, py::handle statistics_,
                             py::handle grad_, py::handle partial_, py::handle grad_rows_, py::handle grad_decoder_,
                             py::handle grad_bias_) {
    const Inputs inputs(rows, positions, decoder, bias, labels, weights, vocab_size);
    const int64_t count = inputs.labels.size(0), hidden = inputs.rows.size(1);
    const Tensor statistics(statistics_, "statistics", Dtype::float32, {count, 4}, inputs.rows);
    const Tensor grad(grad_, "grad", Dtype::float32, {}, inputs.rows);
    const Tensor partial(partial_, "partial", Dtype::float32, {ANY, count, hidden}, inputs.rows);
    const Tensor grad_rows(grad_rows_, "grad_rows", Dtype::bfloat16, inputs.rows.shape(), inputs.rows);
    const Tensor grad_decoder(grad_decoder_, "grad_decoder", Dtype::bfloat16, inputs.decoder.shape(), inputs.rows);
    const Tensor grad_bias(grad_bias_, "grad_bias", Dtype::float32, inputs.bias.shape(), inputs.rows);
    inputs.check_no_overlap_with({&partial, &grad_rows, &grad_decoder, &grad_bias});
    check_no_overlap({&partial, &grad_rows, &grad_decoder, &grad_bias}, {&statistics, &grad});
    check_aligned({&statistics, &partial, &grad_rows});
    const cuda::FusedMlmLossBackward call{inputs.call(vocab_size, splits_of(partial)),
                                          statistics.data<cuda::RowStatistics>(),
                                          grad.data<float>(),
                                          partial.data<float>(),
                                          grad_rows.data<bfloat16>(),
                                          grad_decoder.data<bfloat16>(),
                                          grad_bias.data<float>()};
    const py::gil_scoped_release unlocked;
    BERTFAST_LAUNCH(fused_mlm_loss_backward(call, inputs.rows.device().stream));
}

}  // namespace

void bind_fused_mlm_loss(py::module_& module) {
    module.def("fused_mlm_loss", &fused_mlm_loss, py::arg("rows"), py::arg("positions"), py::arg("decoder"),
               py::arg("bias"), py::arg("labels"), py::arg("weights"), py::arg("vocab_size"), py::arg("partial"),
               py::arg("label_logits"), py::arg("losses"), py::arg("statistics"));
    module.def("fused_mlm_loss_backward", &fused_mlm_loss_backward, py::arg("rows"), py::arg("positions"),
               py::arg("decoder"), py::arg("bias"), py::arg("labels"), py::arg("weights"), py::arg("vocab_size"),
               py::arg("statistics"), py::arg("grad"), py::arg("partial"), py::arg("grad_rows"),
               py::arg("grad_decoder"), py::arg("grad_bias"));
}

}  // namespace bertfast::bindings
