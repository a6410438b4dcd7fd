"""The optimizer: Adam, all of whose state lies on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bertfast.ops.adam import adam


class Adam:
    """Adam over those of `parameters`, of one device, that require gradients."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._count = torch.zeros((), device=self.parameters[0].device)
        self.state = {
            each: {"step": self._count, "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
            for each in self.parameters
        }
        """By parameter, under torch.optim.Adam's names. "step" is one tensor for all."""

    def step(self, gradients: Sequence[Tensor], rate: Tensor, factor: Tensor, refused: Tensor) -> None:
        """See `bertfast.ops.adam.adam`. A step that is refused is not counted."""
        self._count += 1 - refused
        exp_avgs, exp_avg_sqs = (
            [self.state[each][name] for each in self.parameters] for name in ("exp_avg", "exp_avg_sq")
        )
        adam(self.parameters, gradients, exp_avgs, exp_avg_sqs, None, self._count, rate, factor, refused)
        torch.autograd.graph.increment_version(self.parameters)
