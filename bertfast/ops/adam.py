"""A step of Adam: all parameters in one pass, which also writes them in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import AdamTensors
from bertfast.ops.reference import BETA1, BETA2, EPS


@torch.no_grad()
def adam(tensors: AdamTensors, count: Tensor, rate: Tensor, factor: Tensor, refused: Tensor) -> None:
    """A step of Adam, in place, equal to torch.optim.Adam's without options.

    With g the gradient times `factor`, m and v the two averages and t the `count`:
    m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2; p -= rate / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).
    Floor: 28 bytes moved for each parameter, 30 with copies.

    Args:
        tensors: the lists that the step reads and writes.
        count: the number of this step, from 1. It and the next three are float32 scalars on the parameters' device, so
            that the host need not wait for the device.
        rate: the learning rate.
        factor: what the gradients are multiplied by.
        refused: if it is not 0, nothing is written.
    """
    if not has_kernels(count.device, "adam"):
        reference.adam(tensors, count, rate, factor, refused)
        return
    with torch.cuda.device_of(count):
        native.adam(*tensors, count, rate, factor, refused, BETA1, BETA2, EPS)
