"""A layer's two halves as ops: against float64 and against their twins, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases.sublayers import CASES, OPS, upstream
from torch import Tensor

from bertfast.ops.feed_forward import _feed_forward, _feed_forward_backward
from bertfast.ops.self_attention import _self_attention, _self_attention_backward


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", OPS)
def test_against_float64_and_its_twin(isa: str, name: str, case: str, p: float, dtype: torch.dtype) -> None:
    op, twin, make = OPS[name]
    leaves, of = make(case, dtype, p)
    grad = upstream(of(op)(*leaves))
    ours = run(of(op), leaves, grad)
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

    def check(*arguments: Any) -> None:
        values = flat(arguments)
        torch.library.opcheck(native.registered, values)
        out, *intermediate = (each.detach() for each in native.registered(*values))
        plain = [each.detach() if isinstance(each, Tensor) else each for each in values]
        # The backward pass takes the forward pass's arguments up to the LayerNorm's weight, and its dropouts.
        norm_weight, dropouts = (5, 8) if name == "feed_forward" else (11, 15)
        read = [*plain[: norm_weight + 1], *intermediate, *plain[dropouts:]]
        torch.library.opcheck(backward.registered, (upstream(out), *read))

    of(check)(*leaves)


def flat(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments' values, in the order of torch's schema."""
    return tuple(value for each in arguments for value in (flat(each) if isinstance(each, tuple) else (each,)))
