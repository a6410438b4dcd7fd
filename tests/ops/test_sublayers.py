"""A layer's two halves as ops: against float64 and against their twins, forward and backward."""

from __future__ import annotations

import pytest
import torch
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases.sublayers import CASES, OPS, upstream
from torch import Tensor

from bertfast import ops
from bertfast.ops.feed_forward import _feed_forward, _feed_forward_backward
from bertfast.ops.self_attention import _self_attention, _self_attention_backward


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", OPS)
def test_against_float64_and_its_twin(
    isa: str, monkeypatch: pytest.MonkeyPatch, name: str, case: str, p: float, dtype: torch.dtype
) -> None:
    op, twin, make = OPS[name]
    leaves, of = make(case, dtype, p)
    grad = upstream(of(op)(*leaves))
    ours = run(of(op), leaves, grad)
    monkeypatch.setattr(ops, "DEVICES", ())  # the twin's parts are twins, too
    twins, truth = run(of(twin), leaves, grad), run(of(twin), doubled(leaves), grad)
    assert_as_exact(ours, twins, truth, 512)


@pytest.mark.parametrize("name", OPS)
def test_gradient_with_strides_zero(name: str) -> None:
    op, _, make = OPS[name]
    leaves, of = make("few", torch.float32, 0.2)
    ones = torch.ones_like(of(op)(*leaves))
    assert_equal(run(of(op), leaves, ones[:1, :1].expand_as(ones)), run(of(op), leaves, ones))


@pytest.mark.parametrize("case", ["all", "few"])
@pytest.mark.parametrize("name", OPS)
def test_opcheck(name: str, case: str) -> None:
    _, _, make = OPS[name]
    leaves, of = make(case, torch.float32, 0.2)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    native, backward = {
        "self_attention": (_self_attention, _self_attention_backward),
        "feed_forward": (_feed_forward, _feed_forward_backward),
    }[name]
    of(lambda *arguments: torch.library.opcheck(native.registered, arguments))(*leaves)

    def check_backward(*arguments: object) -> None:
        out, *intermediate = native(*arguments)
        plain = [each.detach() if isinstance(each, Tensor) else each for each in arguments]
        norm_weight, last = (5, 8) if name == "feed_forward" else (11, 15)  # the last are its bias, eps and heads
        read, rest = plain[: norm_weight + 1], plain[last:]
        intermediate = [each.detach() for each in intermediate]
        torch.library.opcheck(backward.registered, (upstream(out), *read, *intermediate, *rest))

    of(check_backward)(*leaves)
