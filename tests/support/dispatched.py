"""Which of torch's ops run, at the level of its dispatcher."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Dispatched(TorchDispatchMode):
    """Keeps the names of the ops that run within it, such as "aten::mm", in order. Backward passes count, too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        if func is torch.ops.aten.mm.dtype:  # only CUDA has it; not every torch knows its result's shape elsewhere
            left, right, dtype = args
            return left.new_empty(left.shape[0], right.shape[1], dtype=dtype)
        return func(*args, **(kwargs or {}))
