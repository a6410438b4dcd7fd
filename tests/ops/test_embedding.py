"""embedding_layer_norm against float64 and torch's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from support.dispatched import Dispatched
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases.embedding import SHAPES, both, inputs, of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast.ops import embedding, reference
from bertfast.ops.arguments import Dropout, Ids, Tables
from bertfast.ops.embedding import (
    _embedding_layer_norm,
    _embedding_layer_norm_backward,
    embedding_layer_norm,
)
from bertfast.ops.linear import Copy, in_type


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(isa: str, shape: tuple[int, int, int], dtype: torch.dtype, p: float) -> None:
    ids, leaves, keys, grad = inputs(*shape)
    grad = grad.to(dtype)
    truth = run(of(reference.embedding_layer_norm, ids, keys, p, torch.float64), doubled(leaves), grad)
    torchs = run(of(reference.embedding_layer_norm, ids, keys, p, dtype), leaves, grad)
    assert_as_exact(run(of(embedding_layer_norm, ids, keys, p, dtype), leaves, grad), torchs, truth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_word_tables_own_gradient_is_added(isa: str, dtype: torch.dtype) -> None:
    ids, leaves, keys, grad = inputs(130, 96, 300)

    def joined(function: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype) -> Callable[..., Tensor]:
        def join(*leaves: Tensor) -> Tensor:
            out, words = both(function, ids, keys, 0.2, dtype)(*leaves)
            return torch.cat([out, words.to(dtype)])

        return join

    words = torch.randn(300, 96, generator=torch.Generator().manual_seed(1))
    grad = torch.cat([grad, words]).to(dtype)
    truth = run(joined(reference.embedding_layer_norm, torch.float64), doubled(leaves), grad)
    torchs = run(joined(reference.embedding_layer_norm, dtype), leaves, grad)
    assert_as_exact(run(joined(embedding_layer_norm, dtype), leaves, grad), torchs, truth)


def test_the_word_tables_own_gradient_alone() -> None:
    ids, leaves, keys, _ = inputs(5, 33, 10)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    _, words = both(embedding_layer_norm, ids, keys, 0.2, torch.float32)(*leaves)
    grad = torch.randn(words.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.autograd.grad(words, leaves[0], grad)[0], grad)


def test_the_word_table_brings_its_copy() -> None:
    """So that the head's products need no conversion, and its gradient none either: the table is float32."""
    ids, leaves, keys, _ = inputs(5, 33, 10)
    leaves = [torch.nn.Parameter(leaf) for leaf in leaves]
    copy = Copy.keep(leaves[0], torch.bfloat16)
    _, words = both(embedding_layer_norm, ids, keys, 0.2, torch.bfloat16)(*leaves)
    assert words.dtype == torch.float32
    with torch.no_grad():
        assert in_type(words, torch.bfloat16) is copy.tensor
        leaves[0].add_(1)
        assert in_type(words, torch.bfloat16) is not copy.tensor


def test_the_truth_by_hand() -> None:
    ids, leaves, keys, grad = inputs(20, 6, 5)

    def by_hand(word: Tensor, type_: Tensor, position: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = []
        for token in range(20):
            added = word[ids[0][token]] + type_[ids[1][token]] + position[ids[2][token]]
            centred = added - added.mean()
            rows.append(centred / ((centred**2).mean() + 1e-12).sqrt() * weight + bias)
        return torch.stack(rows)

    twin = run(of(reference.embedding_layer_norm, ids, keys, 0.0, torch.float64), doubled(leaves), grad)
    for a, b in zip(twin, run(by_hand, doubled(leaves), grad), strict=True):
        torch.testing.assert_close(a, b)


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    ids, leaves, keys, grad = inputs(1000, 70, 300)
    two = run(of(embedding_layer_norm, ids, keys, 0.2), leaves, grad)
    torch.set_num_threads(1)
    assert_equal(two, run(of(embedding_layer_norm, ids, keys, 0.2), leaves, grad))


def test_gradient_with_strides_zero() -> None:
    ids, leaves, keys, grad = inputs(10, 70, 5)
    function = of(embedding_layer_norm, ids, keys, 0.2)
    assert_equal(run(function, leaves, torch.ones(1, 1).expand(10, 70)), run(function, leaves, torch.ones_like(grad)))


def test_opcheck() -> None:
    ids, leaves, keys, grad = inputs(5, 33, 10)
    rest = (1e-12, keys, 0.2, 7, 3, torch.bfloat16)
    torch.library.opcheck(_embedding_layer_norm.registered, (*ids, *(leaf.requires_grad_() for leaf in leaves), *rest))
    parameters = [leaf.detach() for leaf in leaves[:4]]
    arguments = (grad, *ids, *parameters, torch.ones(5, 2), keys, 0.2, 7, 3)
    for grad_word in (None, torch.ones(10, 33)):
        torch.library.opcheck(_embedding_layer_norm_backward.registered, (*arguments, grad_word))


def test_a_gpu_sorts_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A position's tokens follow from cu_seqlens. No GPU computes here."""
    passed: list[Tensor] = []
    kernels = SimpleNamespace(embedding_layer_norm_backward=lambda *arguments: passed.extend(arguments))
    monkeypatch.setattr(embedding, "native", kernels)
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: contextlib.nullcontext())
    ids, leaves, keys, grad = inputs(70, 33, 10)
    with FakeTensorMode(), Dispatched() as dispatched:

        def cuda(each: Tensor) -> Tensor:
            return torch.empty(each.shape, dtype=each.dtype, device="cuda")

        ids, tables = Ids._make(map(cuda, ids)), Tables._make(map(cuda, leaves[:3]))
        dropout, moments = Dropout(cuda(keys), 0.2, 7, 3), torch.empty(70, 2, device="cuda")
        _embedding_layer_norm_backward.function(cuda(grad), ids, tables, cuda(leaves[3]), moments, dropout, None)
    assert dispatched.names.count("aten::sort") == 1
    order, begin, cu_seqlens, _ = passed[-4:]
    assert (order.shape, begin.shape) == ((70,), (11,))
    assert (cu_seqlens.dtype, cu_seqlens.shape) == (torch.int32, ids.cu_seqlens.shape)


def test_compiles_whole() -> None:
    """Only traced here; test_model compiles the whole model."""
    ids, leaves, keys, _ = inputs(5, 33, 10)
    function = of(embedding_layer_norm, ids, keys, 0.2, torch.bfloat16)
    assert torch.equal(torch.compile(function, fullgraph=True, backend="aot_eager")(*leaves), function(*leaves))


@pytest.mark.parametrize(("which", "id"), [(0, 10), (0, -1), (1, 2), (2, 64)])
def test_an_id_beyond_its_table(which: int, id: int) -> None:
    ids, leaves, keys, _ = inputs(5, 33, 10)
    ids[which][3] = id
    with pytest.raises(IndexError, match=str(id)):
        of(embedding_layer_norm, ids, keys, 0.2)(*leaves)
