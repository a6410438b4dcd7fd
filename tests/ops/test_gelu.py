"""bias_gelu against float64 and torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases.gelu import SHAPES, inputs

from bertfast.ops import reference
from bertfast.ops.gelu import _bias_gelu, _bias_gelu_backward, bias_gelu


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(isa: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    leaves, grad = inputs(*shape, dtype)
    truth = run(lambda x, bias: F.gelu(x + bias), doubled(leaves), grad)
    assert_as_exact(run(bias_gelu, leaves, grad), run(reference.bias_gelu, leaves, grad), truth)


def test_every_size_of_number(isa: str) -> None:
    """Relative error, so that the negative tail, which is small, counts too."""
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 40.0, 1e30])])[:, None]
    u = x.double()
    truth = u * torch.special.erfc(-u / 2**0.5) / 2
    ours = bias_gelu(x, torch.zeros(1)).double()
    seen = truth.abs() > 1e-35
    # e^(-u^2/2) has u^2/2 times the rounding of its argument.
    allowed = (1 + u**2 / 2) * 6e-7
    assert torch.all(((ours - truth).abs() / truth.abs() <= allowed)[seen])
    assert torch.all(ours.abs()[~seen] <= 1e-30)


def test_not_a_number_and_infinity(isa: str) -> None:
    x = torch.tensor([[float("nan"), float("inf"), 1.0]])
    out = bias_gelu(x, torch.zeros(3))[0]
    assert out[0].isnan()
    assert out[1] == float("inf")
    assert not out[2].isnan()


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    leaves, grad = inputs(1000, 70, torch.float32)
    two = run(bias_gelu, leaves, grad)
    torch.set_num_threads(1)
    assert_equal(two, run(bias_gelu, leaves, grad))


def test_gradient_with_strides_zero() -> None:
    leaves, grad = inputs(10, 70, torch.float32)
    assert_equal(run(bias_gelu, leaves, torch.ones(1, 1).expand(10, 70)), run(bias_gelu, leaves, torch.ones_like(grad)))


def test_opcheck() -> None:
    (x, bias), grad = inputs(5, 33, torch.bfloat16)
    torch.library.opcheck(_bias_gelu.registered, (x.requires_grad_(), bias.requires_grad_()))
    torch.library.opcheck(_bias_gelu_backward.registered, (grad, x.detach(), bias.detach()))


def test_compiles_whole() -> None:
    """Only traced here; test_model compiles the whole model."""
    (x, bias), _ = inputs(5, 33, torch.float32)
    torch.testing.assert_close(
        torch.compile(bias_gelu, fullgraph=True, backend="aot_eager")(x, bias), bias_gelu(x, bias)
    )


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="bias"):
        bias_gelu(torch.ones(2, 3), torch.ones(4))
    with pytest.raises(TypeError, match="bias"):
        bias_gelu(torch.ones(2, 3), torch.ones(3).bfloat16())
