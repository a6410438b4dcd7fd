"""Packed attention against float64, against its twin and against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.dropout_draws import half
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases.attention import CASES, cumulative, leaves, native, of, packed, twin, upstream
from torch import Tensor

from bertfast.ops.attention import _attention, _attention_backward


def by_sequence(attend: Callable[..., Tensor], query: Tensor, key_value: Tensor, *lengths: Tensor) -> Tensor:
    """`attend`, on (heads, length, head_dim), a sequence at a time."""
    outs = [query[:0]]
    cu_q, cu_k = (each.tolist() for each in lengths[:2])
    for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False):
        if q1 > q0:
            key, value = key_value[k0:k1].permute(1, 2, 0, 3)
            outs.append(attend(query[q0:q1].transpose(0, 1), key, value).transpose(0, 1))
    return torch.cat(outs)


def sdpa(*arguments: Any) -> Tensor:
    return by_sequence(F.scaled_dot_product_attention, *arguments)


def products(*arguments: Any) -> Tensor:
    return by_sequence(lambda q, k, v: (q @ k.mT / q.shape[2] ** 0.5).softmax(2) @ v, *arguments)


def compare_with_float64(
    function: Callable[..., Tensor], peer: Callable[..., Tensor], case: str, dtype: torch.dtype
) -> None:
    lengths, heads, head_dim, query_lengths = CASES[case]
    inputs = packed(lengths, heads, head_dim, dtype, query_lengths)
    grad = upstream(inputs)
    truth = run(of(sdpa, inputs), doubled(leaves(inputs)), grad)
    ours = run(of(function, inputs, 0.0, 0, 0), leaves(inputs), grad)
    assert_as_exact(ours, run(of(peer, inputs), leaves(inputs), grad), truth, head_dim + inputs.max_seqlen)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_against_float64(isa: str, case: str, dtype: torch.dtype) -> None:
    # The factors of products are bfloat16 where the processor multiplies it, not in torch's kernel.
    compare_with_float64(native, products if isa in ("avx512_bf16", "amx", "neon_bf16") else sdpa, case, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_twin_against_float64(case: str, dtype: torch.dtype) -> None:
    compare_with_float64(twin, products, case, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_dropout_equals_the_twins(isa: str, case: str, dtype: torch.dtype) -> None:
    lengths, heads, head_dim, query_lengths = CASES[case]
    inputs = packed(lengths, heads, head_dim, dtype, query_lengths)
    grad, rule = upstream(inputs), (0.2, 77, 5)
    truth = run(of(twin, inputs, *rule), doubled(leaves(inputs)), grad)
    twins = run(of(twin, inputs, *rule), leaves(inputs), grad)
    ours = run(of(native, inputs, *rule), leaves(inputs), grad)
    assert_as_exact(ours, twins, truth, head_dim + inputs.max_seqlen)


@pytest.mark.parametrize("function", [native, twin], ids=["native", "twin"])
def test_drops_by_the_specification(function) -> None:  # type: ignore[no-untyped-def]
    """With equal scores and one-hot values, the output shows each probability."""
    length, heads, p, seed, site = 9, 2, 0.5, 21, 3
    query = torch.zeros(length, heads, length)
    key_value = torch.zeros(length, 2, heads, length)
    key_value[:, 1] = torch.eye(length)[:, None, :]
    cu = cumulative([length])
    keys = torch.arange(100, 100 + length)
    out = function(query, key_value, cu, cu, length, keys, p, seed, site)
    for i in range(length):
        for head in range(heads):
            for j in range(length):
                kept = half(seed, site * 256 + head, 100 + i, j) < 2**15
                assert out[i, head, j].item() == pytest.approx(2 / length if kept else 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(two_threads: None, dtype: torch.dtype) -> None:
    inputs = packed([45, 3, 0, 64, 17, 130], 3, 33, dtype)
    two = run(of(native, inputs, 0.2, 1, 2), leaves(inputs), upstream(inputs))
    torch.set_num_threads(1)
    assert_equal(two, run(of(native, inputs, 0.2, 1, 2), leaves(inputs), upstream(inputs)))


def test_a_sequence_does_not_see_its_neighbours() -> None:
    inputs = packed([7, 20, 5], 2, 16, torch.float32)
    alone = inputs._replace(
        query=inputs.query[7:27],
        key_value=inputs.key_value[7:27],
        cu_seqlens_q=cumulative([20]),
        cu_seqlens_k=cumulative([20]),
        row_keys=inputs.row_keys[7:27],
    )
    assert torch.equal(native(*inputs, 0.2, 1, 2)[7:27], native(*alone, 0.2, 1, 2))


def test_gradient_with_strides_zero() -> None:
    inputs = packed([7, 20], 2, 16, torch.float32)
    function = of(native, inputs, 0.2, 1, 2)
    ones = torch.ones_like(inputs.query)
    assert_equal(run(function, leaves(inputs), ones[:1, :1, :1].expand_as(ones)), run(function, leaves(inputs), ones))


def test_opcheck() -> None:
    inputs = packed([5, 9, 3], 2, 16, torch.float32)
    torch.library.opcheck(_attention.registered, (*inputs, 0.2, 1, 2))
    out, log_sum_exp = _attention.registered(*inputs, 0.2, 1, 2)
    arguments = [each.detach() for each in (out, inputs.query, inputs.key_value, log_sum_exp)]
    torch.library.opcheck(_attention_backward.registered, (*arguments, *inputs[2:], 0.2, 1, 2))


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"max_seqlen": 8}, "sequence 1 has 9 queries and 9 keys; max_seqlen is 8"),
        ({"cu_seqlens_q": cumulative([5, 9, 4])}, "end at the number of tokens"),
        ({"cu_seqlens_k": cumulative([9, 5, 4])}, "end at the number of tokens"),
        ({"cu_seqlens_k": torch.tensor([0, 5, 4, 17], dtype=torch.int32)}, "sequence 1 has 9 queries and -1 keys"),
        ({"cu_seqlens_k": cumulative([0, 14, 3]), "max_seqlen": 17}, "sequence 0 has 5 queries and 0 keys"),
        ({"row_keys": torch.arange(3)}, "row_keys must have the shape"),
        ({"key_value": torch.zeros(17, 2, 2, 15)}, "key_value must have the shape"),
        ({"query": torch.zeros(17, 2, 0), "key_value": torch.zeros(17, 2, 2, 0)}, "a width of at least 1"),
    ],
)
def test_wrong_arguments(changed: dict[str, object], refused: str) -> None:
    inputs = packed([5, 9, 3], 2, 16, torch.float32)
    with pytest.raises(ValueError, match=refused):
        native(*inputs._replace(**changed), 0.2, 1, 2)


@pytest.mark.parametrize("site", [-1, 2**16, 2**56, -(2**63)])  # the larger ones times 256 don't fit into 64 bits
def test_a_site_out_of_range_is_refused(site: int) -> None:
    with pytest.raises(ValueError, match="a dropout's site must be in"):
        native(*packed([5, 9, 3], 2, 16, torch.float32), 0.2, 1, site)


def test_compiles_whole() -> None:
    """Only traced here; test_model compiles the whole model."""
    inputs = packed([5, 9, 3], 2, 16, torch.float32)

    def function(query: Tensor) -> Tensor:
        return native(query, *inputs[1:], 0.2, 1, 2) + twin(query, *inputs[1:], 0.2, 1, 2)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs.query), function(inputs.query))
