#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/module.h"
#include "bindings/run.h"

namespace bertfast::bindings {

namespace {

// The tensors of a list, each with the shape and on the device of its parameter.
std::vector<Tensor> checked(const py::sequence& list, const std::string& name, Dtype dtype,
                            const std::vector<Tensor>& parameters) {
    if (list.size() != parameters.size()) {
        throw py::value_error(name + " must have as many tensors as parameters, " + std::to_string(parameters.size()) +
                              ", not " + std::to_string(list.size()));
    }
    std::vector<Tensor> tensors;
    tensors.reserve(parameters.size());
    for (const Tensor& parameter : parameters) {
        const std::string number = "[" + std::to_string(tensors.size()) + "]";
        tensors.emplace_back(list[tensors.size()], (name + number).c_str(), dtype, parameter.shape(), parameter);
    }
    return tensors;
}

void adam(const py::sequence& parameters_, const py::sequence& gradients_, const py::sequence& exp_avgs_,
          const py::sequence& exp_avg_sqs_, const std::optional<py::sequence>& copies_, py::handle count_,
          py::handle rate_, py::handle factor_, py::handle refused_, double beta1, double beta2, double eps) {
    const Tensor count(count_, "count", {Dtype::float32}, {});
    const Tensor rate(rate_, "rate", Dtype::float32, {}, count);
    const Tensor factor(factor_, "factor", Dtype::float32, {}, count);
    const Tensor refused(refused_, "refused", Dtype::float32, {}, count);
    std::vector<Tensor> parameters;
    for (size_t i = 0; i < parameters_.size(); ++i) {
        const std::string name = "parameters[" + std::to_string(i) + "]";
        parameters.emplace_back(parameters_[i], name.c_str(), std::vector<Dtype>{Dtype::float32});
        parameters.back().require_same_device(count);
    }
    const auto gradients = checked(gradients_, "gradients", Dtype::float32, parameters);
    const auto exp_avgs = checked(exp_avgs_, "exp_avgs", Dtype::float32, parameters);
    const auto exp_avg_sqs = checked(exp_avg_sqs_, "exp_avg_sqs", Dtype::float32, parameters);
    std::vector<Tensor> copies;
    if (copies_) copies = checked(*copies_, "copies", Dtype::bfloat16, parameters);

    std::vector<const Tensor*> written, read = {&count, &rate, &factor, &refused};
    std::vector<AdamTensor> tensors;
    for (size_t i = 0; i < parameters.size(); ++i) {
        read.push_back(&gradients[i]);
        written.insert(written.end(), {&parameters[i], &exp_avgs[i], &exp_avg_sqs[i]});
        if (copies_) written.push_back(&copies[i]);
        tensors.push_back({parameters[i].data<float>(), gradients[i].data<float>(), exp_avgs[i].data<float>(),
                           exp_avg_sqs[i].data<float>(), copies_ ? copies[i].data<bfloat16>() : nullptr,
                           parameters[i].elements()});
    }
    check_no_overlap(written, read);
    const AdamRule rule{
        count.data<float>(), rate.data<float>(), factor.data<float>(), refused.data<float>(), beta1, beta2, eps};
    const auto number = static_cast<int64_t>(tensors.size());
    BERTFAST_RUN(count.device(), adam(tensors.data(), number, rule),
                 adam(tensors.data(), number, rule, count.device().stream));
}

}  // namespace

void bind_adam(py::module_& module) {
    module.def("adam", &adam, py::arg("parameters"), py::arg("gradients"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"),
               py::arg("copies"), py::arg("count"), py::arg("rate"), py::arg("factor"), py::arg("refused"),
               py::arg("beta1"), py::arg("beta2"), py::arg("eps"));
}

}  // namespace bertfast::bindings
