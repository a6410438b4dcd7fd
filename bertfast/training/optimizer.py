"""The optimizer: AdamW, or Muon for the layers' matrices and AdamW for the rest, with all of its state on the device.

Weights are float32. For products in bfloat16, each weight would be converted again in the forward pass, in the backward
pass, and in each shard. Only the optimizer changes weights, so it writes them in both dtypes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from bertfast.ops.adam import adam
from bertfast.ops.arguments import AdamTensors
from bertfast.ops.linear import Copy
from bertfast.training.muon import Muon, layer_matrices
from bertfast.training.setup import Setup


def make_optimizer(setup: Setup) -> Optimizer:
    """The optimizer that `setup.config` names, over the model's parameters."""
    config, muon = setup.config, None
    matrices = {weight: count for weight, count in layer_matrices(setup.model).items() if weight.requires_grad}
    if config.optimizer == "muon" and matrices:
        muon = Muon(matrices, config.muon_lr / config.lr, setup.dtype, setup.world)
    head = set(setup.model.masked_lm_head.parameters()) if config.head_first else ()
    return Optimizer(setup.model.parameters(), setup.dtype, config.weight_decay, muon, head)


class Optimizer:
    """AdamW for the `parameters` that require gradients, on one device, except for those that `muon` takes.

    Before a step, every parameter of two dimensions shrinks: W -= its rate * `weight_decay` * W. Biases and LayerNorms
    do not. Until `close`, each parameter has a copy in `dtype`, the products'. The parameters in `head` have a learning
    rate of their own.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        dtype: torch.dtype,
        weight_decay: float,
        muon: Muon | None = None,
        head: Collection[nn.Parameter] = (),
    ) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.count = torch.zeros((), dtype=torch.float32, device=self.parameters[0].device)
        """The steps taken."""
        self._weight_decay, self._muon = weight_decay, muon
        by_muon = {} if muon is None else muon.state
        by_adam: list[Tensor] = [each for each in self.parameters if each not in by_muon]
        self._head = [each for each in by_adam if each in head]
        self._others = [each for each in by_adam if each not in head]
        self.state: dict[Tensor, dict[str, Tensor]] = {
            each: {name: torch.zeros_like(each) for name in ("exp_avg", "exp_avg_sq")} for each in by_adam
        } | by_muon
        """By parameter: momentum, or torch.optim.Adam's exp_avg and exp_avg_sq."""
        kept = [] if dtype == torch.float32 else self.parameters
        self._copies: dict[Tensor, Copy] = {each: Copy.keep(each, dtype) for each in kept}

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor],
        rate: Tensor,
        factor: Tensor,
        refused: Tensor,
        head_rate: Tensor,
    ) -> None:
        """A step with the parameters' gradients. A refused step is not counted.

        Args:
            gradients: float32, in the parameters' order; with Muon equal on all ranks.
            rate: AdamW's learning rate. It and the next three are float32 scalars on the parameters' device, so that
                the host need not wait for the device.
            factor: what the gradients are multiplied by.
            refused: 0, or 1: nothing changes, even if gradients are non-finite.
            head_rate: AdamW's learning rate for the parameters in `head`.
        """
        self.count += 1 - refused
        for parameter, copy in self._copies.items():
            if not copy.is_current(parameter):  # it was loaded or broadcast, and the step may be refused
                copy.tensor.copy_(parameter)
        gradient_of: dict[Tensor, Tensor] = dict(zip(self.parameters, gradients, strict=True))
        for parameters, adam_rate in ((self._others, rate), (self._head, head_rate)):
            if parameters:
                self._decay(parameters, adam_rate * (1 - refused))
                self._step_adam(parameters, [gradient_of[each] for each in parameters], adam_rate, factor, refused)
        if self._muon is not None:
            muon_rate = self._muon.relative_rate * rate * (1 - refused)
            self._decay(self._muon.parameters, muon_rate)
            self._muon.step([gradient_of[each] for each in self._muon.parameters], muon_rate, factor, refused)
            for parameter in self._muon.parameters if self._copies else ():
                self._copies[parameter].tensor.copy_(parameter)
        for parameter, copy in self._copies.items():
            copy.mark_current(parameter)

    def close(self) -> None:
        """Drops the parameters' copies."""
        for parameter in self.parameters:
            Copy.drop(parameter)

    def _decay(self, parameters: Sequence[Tensor], rate: Tensor) -> None:
        matrices = [each for each in parameters if each.dim() == 2]
        if self._weight_decay and matrices:
            torch._foreach_mul_(matrices, 1 - rate * self._weight_decay)

    def _step_adam(
        self, parameters: list[Tensor], gradients: Sequence[Tensor], rate: Tensor, factor: Tensor, refused: Tensor
    ) -> None:
        exp_avgs, exp_avg_sqs = ([self.state[each][name] for each in parameters] for name in ("exp_avg", "exp_avg_sq"))
        copies = [self._copies[each].tensor for each in parameters] if self._copies else None
        tensors = AdamTensors(parameters, gradients, exp_avgs, exp_avg_sqs, copies)
        adam(tensors, self.count, rate, factor, refused)
        torch.autograd.graph.increment_version(parameters)
