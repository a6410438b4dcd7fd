"""Which ops have kernels on which device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bertfast import ops
from bertfast._native import native
from bertfast.ops import kernels


def test_kernels_are_named(isa: str) -> None:
    assert kernels(torch.device("cpu")) == f"native ({isa})"
    assert kernels(torch.device("cuda")) == ("native (cuda)" if native.has_cuda else "plain torch")
    assert kernels(torch.device("meta")) == "plain torch"


def test_old_gpus_have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "has_cuda", True)
    for capability, expected in (
        ((7, 0), "plain torch"),
        ((7, 5), "native (cuda) but for attention, self_attention"),
        ((8, 0), "native (cuda)"),
    ):
        monkeypatch.setattr(ops, "capability", lambda index, found=capability: found)
        assert kernels(torch.device("cuda", 0)) == expected


def test_a_capability_is_a_constant_where_code_is_compiled() -> None:
    def function(x: Tensor) -> Tensor:
        return -x if ops.capability(x.device.index) > (5, 0) else x

    assert torch.compile(function, fullgraph=True, backend="eager")(torch.ones(1)) == -1
