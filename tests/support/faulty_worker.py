"""faulty_worker.py FAULT JOB: a worker of the device check whose bias_gelu, as its kernel computes it, has a fault.

The other checks are those of one small size.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

import torch
from torch import Tensor

from bertfast import ops
from bertfast.ops.gelu import bias_gelu
from bertfast.training.device_check import ops as op_checks
from bertfast.training.device_check import worker

FAULT = sys.argv.pop(1)
CALLS = itertools.count()


def faulty(x: Tensor, bias: Tensor) -> Tensor:
    right = bias_gelu(x, bias)
    if not ops.has_kernels(x.device, "bias_gelu"):
        return right
    if FAULT == "wrong":
        return torch.cat([right[:-1], 1.2 * right[-1:]])
    if FAULT == "changing":
        return right * (1 + 1e-5 * next(CALLS))  # within the tolerance, and other bits in each call
    if FAULT == "nan":
        return right * float("nan")
    if FAULT == "abort":
        os.abort()
    if FAULT == "hang":
        signal.pause()
    return right


if __name__ == "__main__":
    op_checks.bias_gelu = faulty
    op_checks.ODD[:] = [op_checks.Size((3, 5), 33, 1, 129)]
    op_checks.sizes = lambda device: op_checks.ODD
    if FAULT == "beginning":
        sys.exit("no device is here")
    worker.main()
