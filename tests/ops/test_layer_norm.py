"""dropout_add_layer_norm against float64 and torch's own."""

from __future__ import annotations

import pytest
import torch
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases.layer_norm import SHAPES, inputs, of
from torch import Tensor

from bertfast.ops import reference
from bertfast.ops.arguments import Dropout
from bertfast.ops.layer_norm import (
    _dropout_add_layer_norm,
    _dropout_add_layer_norm_backward,
    dropout_add_layer_norm,
)


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(isa: str, shape: tuple[int, int], dtype: torch.dtype, p: float) -> None:
    leaves, keys, grad = inputs(*shape, dtype)

    def exact(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        added = reference.apply_dropout(x, Dropout(keys, p, 7, 3)) + residual
        centred = added - added.mean(1, keepdim=True)
        return centred / ((centred**2).mean(1, keepdim=True) + 1e-12).sqrt() * weight + bias

    truth = run(exact, doubled(leaves), grad)
    torchs = run(of(reference.dropout_add_layer_norm, keys, p), leaves, grad)
    assert_as_exact(run(of(dropout_add_layer_norm, keys, p), leaves, grad), torchs, truth)


def test_forward_and_backward_drop_the_same() -> None:
    (x, residual, weight, bias), keys, grad = inputs(50, 96, torch.float32)
    _, grad_x, grad_residual, _, _ = run(of(dropout_add_layer_norm, keys, 0.2), [x, residual, weight, bias], grad)
    torch.testing.assert_close(grad_x, reference.apply_dropout(grad_residual, Dropout(keys, 0.2, 7, 3)))


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    leaves, keys, grad = inputs(1000, 70, torch.bfloat16)
    two = run(of(dropout_add_layer_norm, keys, 0.2), leaves, grad)
    torch.set_num_threads(1)
    assert_equal(two, run(of(dropout_add_layer_norm, keys, 0.2), leaves, grad))


def test_gradient_with_strides_zero() -> None:
    leaves, keys, grad = inputs(10, 70, torch.float32)
    function = of(dropout_add_layer_norm, keys, 0.2)
    assert_equal(run(function, leaves, torch.ones(1, 1).expand(10, 70)), run(function, leaves, torch.ones_like(grad)))


def test_opcheck() -> None:
    leaves, keys, grad = inputs(5, 33, torch.bfloat16)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    torch.library.opcheck(_dropout_add_layer_norm.registered, (*leaves, 1e-12, keys, 0.2, 7, 3))
    x, residual, weight, _ = (leaf.detach() for leaf in leaves)
    torch.library.opcheck(
        _dropout_add_layer_norm_backward.registered, (grad, x, residual, weight, torch.ones(5, 2), keys, 0.2, 7, 3)
    )


def test_compiles_whole() -> None:
    """Only traced here; test_model compiles the whole model."""
    leaves, keys, _ = inputs(5, 33, torch.float32)
    function = of(dropout_add_layer_norm, keys, 0.2)
    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(*leaves), function(*leaves))


@pytest.mark.parametrize(("wrong", "refused"), [(0, "residual"), (1, "residual"), (2, "weight"), (3, "bias")])
def test_wrong_arguments(wrong: int, refused: str) -> None:
    leaves, keys, _ = inputs(5, 33, torch.float32)
    leaves[wrong] = leaves[wrong][..., :32]
    with pytest.raises(ValueError, match=f"^{refused} must have the shape"):
        of(dropout_add_layer_norm, keys, 0.2)(*leaves)
