"""A step of Adam: all parameters in one pass, which also writes them in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


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
    """Adam's step, in place, as torch.optim.Adam takes it without options.

    With g the gradient times `factor`, m and v the two averages and t the `count`:
    m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2; p -= rate / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).
    Floor: 28 bytes a parameter are moved, 30 with copies.

    Args:
        parameters, gradients, exp_avgs, exp_avg_sqs: of any shapes, the four lists of the same ones; float32.
        copies: of the same shapes, bfloat16: the new parameters, rounded. None: not wanted.
        count: the steps, this one included. Like the three that follow a float32 scalar beside the parameters, so that
            nobody need wait for the device.
        rate: of learning.
        factor: what the gradients are multiplied by.
        refused: where it is not 0, nothing is written.
    """
    lists = (parameters, gradients, exp_avgs, exp_avg_sqs)
    if not has_kernels(count.device, "adam"):
        adam_twin(*lists, copies, count, rate, factor, refused)
        return
    with torch.cuda.device_of(count):
        native.adam(*lists, copies, count, rate, factor, refused, BETA1, BETA2, EPS)


@torch.no_grad()
def adam_twin(
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
    """`adam` in plain torch, which reads `refused` on the host. The parameters may be float64."""
    if refused:
        return
    step = rate.double() / (1 - BETA1 ** count.double())
    correction = (1 - BETA2 ** count.double()).sqrt()
    for number, (p, gradient, m, v) in enumerate(zip(parameters, gradients, exp_avgs, exp_avg_sqs, strict=True)):
        g = gradient * factor
        m.lerp_(g, 1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        p.sub_(step.to(p.dtype) * m / (v.sqrt() / correction.to(p.dtype) + EPS))
        if copies is not None:
            copies[number].copy_(p)
