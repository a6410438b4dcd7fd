"""faulty_worker.py JOB: a worker of the device check, two of whose ops have a fault where their kernels run.

bias_gelu computes wrong numbers, and adam ends the process. The checks are those of one small size.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from bertfast import ops
from bertfast.ops import adam as adam_op
from bertfast.ops.gelu import bias_gelu
from bertfast.training.device_check import ops as op_checks
from bertfast.training.device_check import worker

SIZE = op_checks.Size((3, 5), 33, 1, 129)


def wrong(x: Tensor, bias: Tensor) -> Tensor:
    right = bias_gelu(x, bias)
    if not ops.has_kernels(x.device, "bias_gelu"):
        return right
    return torch.cat([right[:-1], 1.2 * right[-1:]])


def crashing(*arguments: object) -> None:
    if ops.has_kernels(torch.device("cpu"), "adam"):
        os.abort()
    adam_op.adam(*arguments)


if __name__ == "__main__":
    op_checks.bias_gelu, op_checks.adam = wrong, crashing
    op_checks.sizes = lambda device: [SIZE]
    worker.main()
