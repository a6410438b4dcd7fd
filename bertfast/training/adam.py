"""The optimizer: Adam, all of whose state lies on the device, and which keeps the weights in the products' type, too.

Weights are float32. In bfloat16 every product would convert its own anew, forward and backward and in each shard; Adam,
which has each weight in hand as it changes, writes it in both types.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bertfast.ops.adam import adam
from bertfast.ops.linear import Copy


class Adam:
    """Adam over those of `parameters`, of one device, that require gradients, for products in `dtype`.

    Until `close`, each parameter has a copy in that type with it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._count = torch.zeros((), dtype=torch.float32, device=self.parameters[0].device)
        self.state = {
            each: {"step": self._count, "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
            for each in self.parameters
        }
        """By parameter, under torch.optim.Adam's names. "step" is one tensor for all."""
        self._copies = {} if dtype == torch.float32 else {each: Copy.keep(each, dtype) for each in self.parameters}

    def step(self, gradients: Sequence[Tensor], rate: Tensor, factor: Tensor, refused: Tensor) -> None:
        """See `bertfast.ops.adam.adam`. A step that is refused is not counted."""
        self._count += 1 - refused
        for parameter, copy in self._copies.items():
            if not copy.is_current(parameter):  # it was loaded, or came from another rank; and the step may be refused
                copy.tensor.copy_(parameter.detach())
        exp_avgs, exp_avg_sqs = (
            [self.state[each][name] for each in self.parameters] for name in ("exp_avg", "exp_avg_sq")
        )
        copies = [copy.tensor for copy in self._copies.values()] if self._copies else None
        adam(self.parameters, gradients, exp_avgs, exp_avg_sqs, copies, self._count, rate, factor, refused)
        torch.autograd.graph.increment_version(self.parameters)
        for parameter, copy in self._copies.items():
            copy.mark_current(parameter)

    def close(self) -> None:
        """Leaves the parameters without copies."""
        for parameter in self.parameters:
            Copy.drop(parameter)
