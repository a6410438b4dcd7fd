"""A step of Adam: all parameters in one pass, which also writes them in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.reference import BETA1, BETA2, EPS


@torch.no_grad()
def adam(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    copies: Sequence[Tensor] | None,
    count: Tensor,
    rate: Tensor,
    factor: Tensor,
    refused: Tensor,
) -> None:
    """A step of Adam, in place, as torch.optim.Adam takes it without options.

    With g the gradient times `factor`, m and v the two averages and t the `count`:
    m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2; p -= rate / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).
    Floor: 28 bytes moved for each parameter, 30 with copies.

    Args:
        parameters, gradients, exp_avgs, exp_avg_sqs: float32, of any shapes, which are the same in all four lists.
        copies: of the same shapes, bfloat16, to be filled with the new parameters, rounded; None: there are none.
        count: the number of this step, from 1. It and the next three are float32 scalars on the parameters' device, so
            that the host need not wait for it.
        rate: the learning rate.
        factor: what the gradients are multiplied by.
        refused: where it is not 0, nothing is written.
    """
    lists = (parameters, gradients, exp_avgs, exp_avg_sqs)
    if not has_kernels(count.device, "adam"):
        reference.adam(*lists, copies, count, rate, factor, refused)
        return
    with torch.cuda.device_of(count):
        native.adam(*lists, copies, count, rate, factor, refused, BETA1, BETA2, EPS)
