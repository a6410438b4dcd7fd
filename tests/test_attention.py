"""Packed attention against float64, against its twin and against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast.ops.attention import _attention, _attention_backward, attention, attention_twin

DTYPES = [torch.float32, torch.bfloat16]


class Packed(NamedTuple):
    query: Tensor
    key_value: Tensor
    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    max_seqlen: int
    row_keys: Tensor


def cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def packed(
    lengths: list[int], heads: int, head_dim: int, dtype: torch.dtype, query_lengths: list[int] | None = None
) -> Packed:
    query_lengths = lengths if query_lengths is None else query_lengths
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + heads * 31 + head_dim)
    query = torch.randn(sum(query_lengths), heads, head_dim, generator=generator)
    key_value = torch.randn(sum(lengths), 2, heads, head_dim, generator=generator)
    # A few loud keys, so that some rows of the softmax are all but one-hot.
    key_value[::7, 0] *= 4
    return Packed(
        query.to(dtype).requires_grad_(),
        key_value.to(dtype).requires_grad_(),
        cumulative(query_lengths),
        cumulative(lengths),
        max([1, *lengths, *query_lengths]),
        torch.randint(0, 2**60, (query.shape[0],), generator=generator),
    )


def double(inputs: Packed) -> Packed:
    return inputs._replace(
        query=inputs.query.detach().double().requires_grad_(),
        key_value=inputs.key_value.detach().double().requires_grad_(),
    )


def by_sequence(inputs: Packed, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """`attend`, on (heads, length, head_dim), a sequence at a time."""
    outs = [inputs.query[:0]]
    cu_q, cu_k = inputs.cu_seqlens_q.tolist(), inputs.cu_seqlens_k.tolist()
    for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False):
        if q1 > q0:
            key, value = inputs.key_value[k0:k1].permute(1, 2, 0, 3)
            outs.append(attend(inputs.query[q0:q1].transpose(0, 1), key, value).transpose(0, 1))
    return torch.cat(outs)


def sdpa(inputs: Packed) -> Tensor:
    return by_sequence(inputs, F.scaled_dot_product_attention)


def products(inputs: Packed) -> Tensor:
    return by_sequence(inputs, lambda q, k, v: (q @ k.mT / q.shape[2] ** 0.5).softmax(2) @ v)


def run(function, inputs: Packed, grad: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    out = function(inputs)
    leaves = (inputs.query, inputs.key_value)
    grads = torch.autograd.grad(out, leaves, grad.to(out.dtype), materialize_grads=True)
    return [out.detach(), *grads]


def error(values: list[Tensor], truth: list[Tensor]) -> list[float]:
    return [(a.double() - b).abs().max().item() if b.numel() else 0.0 for a, b in zip(values, truth, strict=True)]


def allowed(torchs_error: float, truth: Tensor, dtype: torch.dtype) -> float:
    scale = truth.abs().max().item() if truth.numel() else 0.0
    return (2 if dtype == torch.bfloat16 else 4) * torchs_error + 4 * torch.finfo(torch.float32).eps * scale


CASES = {
    "one token": ([1], 1, 8, None),
    "short": ([45, 33, 64, 12], 2, 64, None),
    "odd": ([63, 65, 1, 7], 3, 33, None),
    "long": ([511], 1, 32, None),
    "few queries": ([45, 64, 20], 2, 64, [8, 11, 1]),
    "empty": ([0, 5, 0, 0, 9, 0], 3, 48, None),
    "no query": ([5, 9], 1, 96, [0, 2]),
    "nothing": ([0, 0], 2, 16, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("function", [attention, attention_twin])
def test_against_float64(isa: str, function, case: str, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    lengths, heads, head_dim, query_lengths = CASES[case]
    inputs = packed(lengths, heads, head_dim, dtype, query_lengths)
    grad = torch.randn(inputs.query.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    truth = run(sdpa, double(inputs), grad)
    ours = run(lambda inputs: function(*inputs, 0.0, 0, 0), inputs, grad)
    # The twin's products are rounded to bfloat16, those of torch's kernel for the CPU are not.
    peer = products if function is attention_twin else sdpa
    torchs = run(peer, inputs, grad)
    for ours_error, torchs_error, of in zip(error(ours, truth), error(torchs, truth), truth, strict=True):
        assert ours_error <= allowed(torchs_error, of, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_dropout_is_the_twin_s(isa: str, case: str, dtype: torch.dtype) -> None:
    lengths, heads, head_dim, query_lengths = CASES[case]
    inputs = packed(lengths, heads, head_dim, dtype, query_lengths)
    grad = torch.randn(inputs.query.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    rule = (0.2, 77, 5)
    truth = run(lambda inputs: attention_twin(*inputs, *rule), double(inputs), grad)
    ours = run(lambda inputs: attention(*inputs, *rule), inputs, grad)
    twin = run(lambda inputs: attention_twin(*inputs, *rule), inputs, grad)
    for ours_error, twin_error, of in zip(error(ours, truth), error(twin, truth), truth, strict=True):
        assert ours_error <= allowed(twin_error, of, dtype)


def test_twin_drops_by_the_specification() -> None:
    """With equal scores and one-hot values, the output shows each probability."""
    from test_dropout import word

    length, heads, p, seed, site = 9, 2, 0.5, 21, 3
    query = torch.zeros(length, heads, length)
    key_value = torch.zeros(length, 2, heads, length)
    key_value[:, 1] = torch.eye(length)[:, None, :]
    cu = cumulative([length])
    keys = torch.arange(100, 100 + length)
    out = attention(query, key_value, cu, cu, length, keys, p, seed, site)
    for i in range(length):
        for head in range(heads):
            for j in range(length):
                kept = word(seed, site * 256 + head, 100 + i, j) < 2**31
                assert out[i, head, j].item() == pytest.approx(2 / length if kept else 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(two_threads: None, dtype: torch.dtype) -> None:
    inputs = packed([45, 3, 0, 64, 17, 130], 3, 33, dtype)
    grad = torch.randn_like(inputs.query)
    two = run(lambda inputs: attention(*inputs, 0.2, 1, 2), inputs, grad)
    torch.set_num_threads(1)
    one = run(lambda inputs: attention(*inputs, 0.2, 1, 2), inputs, grad)
    assert all(torch.equal(a, b) for a, b in zip(two, one, strict=True))


def test_a_sequence_does_not_see_its_neighbours() -> None:
    inputs = packed([7, 20, 5], 2, 16, torch.float32)
    alone = inputs._replace(
        query=inputs.query[7:27],
        key_value=inputs.key_value[7:27],
        cu_seqlens_q=cumulative([20]),
        cu_seqlens_k=cumulative([20]),
        row_keys=inputs.row_keys[7:27],
    )
    assert torch.equal(attention(*inputs, 0.2, 1, 2)[7:27], attention(*alone, 0.2, 1, 2))


def test_gradient_with_strides_zero() -> None:
    inputs = packed([7, 20], 2, 16, torch.float32)
    summed = torch.autograd.grad(attention(*inputs, 0.2, 1, 2).sum(), (inputs.query, inputs.key_value))
    ones = run(lambda inputs: attention(*inputs, 0.2, 1, 2), inputs, torch.ones_like(inputs.query))[1:]
    assert all(torch.equal(a, b) for a, b in zip(summed, ones, strict=True))


def test_opcheck() -> None:
    inputs = packed([5, 9, 3], 2, 16, torch.float32)
    torch.library.opcheck(_attention, (*inputs, 0.2, 1, 2))
    out, log_sum_exp = _attention(*inputs, 0.2, 1, 2)
    arguments = [each.detach() for each in (out, inputs.query, inputs.key_value, log_sum_exp)]
    torch.library.opcheck(_attention_backward, (*arguments, *inputs[2:], 0.2, 1, 2))


@pytest.mark.parametrize(
    "changed",
    [
        {"max_seqlen": 8},
        {"cu_seqlens_q": cumulative([5, 9, 4])},
        {"cu_seqlens_k": cumulative([9, 5, 4])},
        {"cu_seqlens_k": torch.tensor([0, 5, 4, 17], dtype=torch.int32)},
        {"cu_seqlens_k": cumulative([0, 14, 3]), "max_seqlen": 17},
        {"row_keys": torch.arange(3)},
        {"key_value": torch.zeros(17, 2, 2, 15)},
    ],
)
def test_wrong_arguments(changed: dict[str, object]) -> None:
    inputs = packed([5, 9, 3], 2, 16, torch.float32)
    with pytest.raises(ValueError):
        attention(*inputs._replace(**changed), 0.2, 1, 2)


def test_compiles_whole() -> None:
    inputs = packed([5, 9, 3], 2, 16, torch.float32)

    def function(query: Tensor) -> Tensor:
        return attention(query, *inputs[1:], 0.2, 1, 2) + attention_twin(query, *inputs[1:], 0.2, 1, 2)

    compiled = torch.compile(function, fullgraph=True)
    torch.testing.assert_close(compiled(inputs.query), function(inputs.query))
