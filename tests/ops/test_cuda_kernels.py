"""Every op on a GPU: against float64 and its twin there, with the CPU's dropout masks, the same bits each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.gpu import NEEDS_GPU
from support.numerics import DTYPES, assert_as_exact, assert_equal, doubled, run
from support.op_cases import adam as adam_cases
from support.op_cases import attention as attention_cases
from support.op_cases import embedding as embedding_cases
from support.op_cases import gelu as gelu_cases
from support.op_cases import layer_norm as layer_norm_cases
from support.op_cases import sublayers as sublayers_cases
from torch import Tensor

from bertfast import ops
from bertfast.ops import reference
from bertfast.ops.adam import adam
from bertfast.ops.arguments import Dropout, Ids
from bertfast.ops.attention import _attention, _attention_backward
from bertfast.ops.embedding import (
    _embedding_layer_norm,
    _embedding_layer_norm_backward,
    embedding_layer_norm,
)
from bertfast.ops.feed_forward import feed_forward
from bertfast.ops.gelu import _bias_gelu, _bias_gelu_backward, bias_gelu
from bertfast.ops.layer_norm import (
    _dropout_add_layer_norm,
    _dropout_add_layer_norm_backward,
    dropout_add_layer_norm,
)
from bertfast.ops.self_attention import self_attention

pytestmark = [pytest.mark.gpu, NEEDS_GPU]


def cuda(tensors: list[Tensor]) -> list[Tensor]:
    return [each.detach().cuda() for each in tensors]


def check(
    op: Callable[..., Tensor],
    twin: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    leaves: list[Tensor],
    grad: Tensor,
    terms: int = 1,
) -> list[Tensor]:
    """`op` and `twin` run on the GPU, `exact` in float64 on the CPU. Returns the op's results, on the CPU."""
    ours = run(op, cuda(leaves), grad.cuda())
    assert_equal(ours, run(op, cuda(leaves), grad.cuda()))
    ours, twins = ([each.cpu() for each in results] for results in (ours, run(twin, cuda(leaves), grad.cuda())))
    assert_as_exact(ours, twins, run(exact, doubled(leaves), grad), terms, grad.abs().max().item())
    return ours


def test_all_ops_have_kernels() -> None:
    assert ops.kernels(torch.device("cuda")) == "native (cuda)"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*gelu_cases.SHAPES, (3000, 768)])
def test_bias_gelu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    leaves, grad = gelu_cases.inputs(*shape, dtype)
    check(bias_gelu, reference.bias_gelu, reference.bias_gelu, leaves, grad, shape[0])


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*layer_norm_cases.SHAPES, (3000, 768)])
def test_dropout_add_layer_norm(shape: tuple[int, int], dtype: torch.dtype, p: float) -> None:
    leaves, keys, grad = layer_norm_cases.inputs(*shape, dtype)
    of = layer_norm_cases.of
    exact = of(reference.dropout_add_layer_norm, keys, p)
    op, twin = (of(each, keys.cuda(), p) for each in (dropout_add_layer_norm, reference.dropout_add_layer_norm))
    _, grad_x, *_ = check(op, twin, exact, leaves, grad, shape[0])
    if p > 0 and shape[1] > 2:
        kept = reference.dropout_mask(Dropout(keys, p, 7, 3), shape[1], 3 * 256)
        assert torch.all(grad_x[~kept] == 0)


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*embedding_cases.SHAPES, (3000, 768, 40_000)])
def test_embedding_layer_norm(shape: tuple[int, int, int], dtype: torch.dtype, p: float) -> None:
    ids, leaves, keys, grad = embedding_cases.inputs(*shape)
    of, gpu_ids = embedding_cases.of, Ids(*cuda([*ids]))
    exact = of(reference.embedding_layer_norm, ids, keys, p, torch.float64)
    op, twin = (
        of(each, gpu_ids, keys.cuda(), p, dtype) for each in (embedding_layer_norm, reference.embedding_layer_norm)
    )
    out, *_ = check(op, twin, exact, leaves, grad.to(dtype), shape[0])
    if p > 0:
        kept = reference.dropout_mask(Dropout(keys, p, 7, 3), shape[1], 3 * 256)
        assert torch.all(out[~kept] == 0)


def test_an_id_beyond_its_table_is_nan() -> None:
    ids, leaves, keys, _ = embedding_cases.inputs(5, 33, 10)
    for which, id in ((0, 10), (0, -1), (1, 2), (2, 64)):
        gpu_ids = cuda([*ids])
        gpu_ids[which][3] = id
        out = embedding_cases.of(embedding_layer_norm, Ids(*gpu_ids), keys.cuda(), 0.0)(*cuda(leaves))
        assert out.isnan().all(1).tolist() == [False, False, False, True, False]


def on_gpu(inputs: attention_cases.Packed) -> attention_cases.Packed:
    return attention_cases.Packed(*(each.detach().cuda() if isinstance(each, Tensor) else each for each in inputs))


ATTENTION_CASES = {
    **attention_cases.CASES,
    "two tiles": ([128, 90, 127], 12, 64, None),
    "wide": ([70, 130], 2, 136, None),
    "many": ([128] * 50, 2, 64, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("case", ATTENTION_CASES)
def test_attention_(case: str, p: float, dtype: torch.dtype) -> None:
    lengths, heads, head_dim, query_lengths = ATTENTION_CASES[case]
    inputs = attention_cases.packed(lengths, heads, head_dim, dtype, query_lengths)
    of, rule = attention_cases.of, (p, 77, 5)
    op, twin = (of(each, on_gpu(inputs), *rule) for each in (attention_cases.native, attention_cases.twin))
    exact, grad = of(attention_cases.twin, inputs, *rule), attention_cases.upstream(inputs)
    check(op, twin, exact, attention_cases.leaves(inputs), grad, head_dim + inputs.max_seqlen)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_drops_what_the_cpu_drops(dtype: torch.dtype) -> None:
    """With equal scores and one-hot values, the output shows each probability."""
    length, heads, p, seed, site = 136, 2, 0.5, 21, 3
    key_value = torch.zeros(length, 2, heads, length, dtype=dtype, device="cuda")
    key_value[:, 1] = torch.eye(length, device="cuda")[:, None, :]
    cu, keys = attention_cases.cumulative([length]).cuda(), torch.arange(length) * 2**40 + 5
    query = torch.zeros(length, heads, length, dtype=dtype, device="cuda")
    out = attention_cases.native(query, key_value, cu, cu, length, keys.cuda(), p, seed, site).cpu()
    for head in range(heads):
        kept = reference.dropout_mask(Dropout(keys, p, seed, site), length, site * 256 + head)
        assert torch.equal(out[:, head] != 0, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("case", sublayers_cases.CASES)
@pytest.mark.parametrize("name", sublayers_cases.OPS)
def test_sublayer(name: str, case: str, p: float, dtype: torch.dtype) -> None:
    op, twin, make = sublayers_cases.OPS[name]
    leaves, of = make(case, dtype, p)
    _, of_cuda = make(case, dtype, p, "cuda")
    grad = sublayers_cases.upstream(of(twin)(*leaves))
    ours = [each.cpu() for each in run(of_cuda(op), cuda(leaves), grad.cuda())]
    twins = [each.cpu() for each in run(of_cuda(twin), cuda(leaves), grad.cuda())]
    assert_as_exact(ours, twins, run(of(twin), doubled(leaves), grad), 512)


def test_adam_() -> None:
    """More tensors than one launch takes."""
    shapes = [*adam_cases.SHAPES, (3000, 768), *[(5,)] * 90]
    exact = adam_cases.take_torchs(adam_cases.state(shapes, torch.float64))
    torchs = adam_cases.take_torchs(adam_cases.state(shapes), fused=True)
    ours = adam_cases.take(adam, adam_cases.on(adam_cases.state(shapes), "cuda"))
    copies = ours[-len(shapes) :]
    assert_equal(copies, [each.bfloat16() for each in ours[: len(shapes)]])
    assert_as_exact([each.cpu() for each in ours[: -len(shapes)]], torchs, exact, terms=5)


def test_opcheck() -> None:
    leaves, grad = gelu_cases.inputs(5, 33, torch.bfloat16)
    x, bias = cuda(leaves)
    torch.library.opcheck(_bias_gelu.registered, (x.clone().requires_grad_(), bias.clone().requires_grad_()))
    torch.library.opcheck(_bias_gelu_backward.registered, (grad.cuda(), x, bias))
    leaves, keys, grad = layer_norm_cases.inputs(5, 33, torch.bfloat16)
    x, residual, weight, bias = cuda(leaves)
    rule = (keys.cuda(), 0.2, 7, 3)
    differentiable = [each.clone().requires_grad_() for each in (x, residual, weight, bias)]
    torch.library.opcheck(_dropout_add_layer_norm.registered, (*differentiable, 1e-12, *rule))
    moments = torch.ones(5, 2, device="cuda")
    torch.library.opcheck(
        _dropout_add_layer_norm_backward.registered, (grad.cuda(), x, residual, weight, moments, *rule)
    )
    ids, leaves, keys, grad = embedding_cases.inputs(5, 33, 10)
    gpu_ids, parameters, rule = cuda([*ids]), cuda(leaves), (keys.cuda(), 0.2, 7, 3)
    differentiable = [each.clone().requires_grad_() for each in parameters]
    torch.library.opcheck(_embedding_layer_norm.registered, (*gpu_ids, *differentiable, 1e-12, *rule, torch.bfloat16))
    torch.library.opcheck(
        _embedding_layer_norm_backward.registered, (grad.cuda(), *gpu_ids, *parameters[:4], moments, *rule, None)
    )
    inputs = on_gpu(attention_cases.packed([5, 9, 70], 2, 16, torch.bfloat16))
    of_two = [each.clone().requires_grad_() for each in inputs[:2]]
    torch.library.opcheck(_attention.registered, (*of_two, *inputs[2:], 0.2, 1, 2))
    out, log_sum_exp = _attention.registered(*inputs, 0.2, 1, 2)
    torch.library.opcheck(_attention_backward.registered, (out, *inputs[:2], log_sum_exp, *inputs[2:], 0.2, 1, 2))


def test_every_op_can_be_captured() -> None:
    """Nothing waits for the device, reads it on the host or has a shape that depends on it."""
    dtype = torch.bfloat16
    ids, leaves, keys, _ = embedding_cases.inputs(65, 64, 10)
    embed = embedding_cases.of(embedding_layer_norm, Ids(*cuda([*ids])), keys.cuda(), 0.2, dtype)
    attend_leaves, attend = sublayers_cases.attention_case("few", dtype, 0.2, "cuda")
    widen_leaves, widen = sublayers_cases.feed_forward_case("few", dtype, 0.2, "cuda")
    calls = [
        (embed, cuda(leaves)),
        (attend(self_attention), cuda(attend_leaves)),
        (widen(feed_forward), cuda(widen_leaves)),
    ]
    for function, arguments in calls:
        grad = torch.ones_like(function(*arguments))
        eager = run(function, arguments, grad)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run(function, arguments, grad)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = run(function, arguments, grad)
        graph.replay()
        assert_equal(captured, eager)
