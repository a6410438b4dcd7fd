"""The optimizer: Adam, with all of its state on the device, and with copies of the weights in the products' dtype.

Weights are float32. In bfloat16 every product would have to convert its weight again: forward, backward, and in each
shard. Adam has each weight at hand when it changes, so it writes both dtypes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bertfast.ops.adam import adam
from bertfast.ops.linear import Copy


class Adam:
    """Adam over those of `parameters`, of one device, that require gradients, for products in `dtype`.

    Until `close`, each parameter has a copy in that dtype.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._count = torch.zeros((), dtype=torch.float32, device=self.parameters[0].device)
        self.state = {
            each: {"step": self._count, "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
            for each in self.parameters
        }
        """By parameter, with torch.optim.Adam's keys. All share one "step" tensor."""
        self._copies = {} if dtype == torch.float32 else {each: Copy.keep(each, dtype) for each in self.parameters}

    def step(self, gradients: Sequence[Tensor], rate: Tensor, factor: Tensor, refused: Tensor) -> None:
        """See `bertfast.ops.adam.adam`. A refused step is not counted."""
        self._count += 1 - refused
        for parameter, copy in self._copies.items():
            if not copy.is_current(parameter):  # it was loaded or broadcast, and the step may be refused
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
        """Drops the parameters' copies."""
        for parameter in self.parameters:
            Copy.drop(parameter)
