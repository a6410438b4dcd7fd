"""The model's ops, forward and backward, and Adam's step, each compared with torch's, at the notebook's sizes.

512 sequences of 26 to 64 tokens, hidden size 128, 2 heads, feed-forward 256. torch's attention runs padded and masked,
as it must for such a batch; the other peers run on the packed rows, as ours do.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sizes import sized
from torch import Tensor

from bertfast.config import BertConfig
from bertfast.model import Bert
from bertfast.ops import kernels
from bertfast.ops.adam import adam
from bertfast.ops.arguments import AdamTensors, Dropout, Ids, Lengths, Norm, Tables
from bertfast.ops.attention import attention
from bertfast.ops.embedding import embedding_layer_norm
from bertfast.ops.gelu import bias_gelu
from bertfast.ops.layer_norm import dropout_add_layer_norm
from bertfast.presets import PRESETS

BATCH = sized(512, smoke=8)
MAX_LEN, HEADS, HEAD_DIM, HIDDEN, INTERMEDIATE, VOCAB_SIZE = 64, 2, 64, 128, 256, 6899
P, SEED, SITE, EPS = 0.2, 1, 2, 1e-12
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GENERATOR = torch.Generator().manual_seed(0)
LENGTHS = torch.randint(26, MAX_LEN + 1, (BATCH,), generator=GENERATOR)
TOKENS = int(LENGTHS.sum())
ROW_KEYS = torch.arange(TOKENS, device=DEVICE)
DROPOUT = Dropout(ROW_KEYS, P, SEED, SITE)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR).to(DEVICE, dtype).requires_grad_()


def step(function: Callable[..., Tensor], *leaves: Tensor) -> Callable[[], None]:
    """Forward and backward, synchronised."""
    grad = torch.randn_like(function(*leaves))

    def run() -> None:
        torch.autograd.grad(function(*leaves), leaves, grad)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return run


Compare = Callable[..., dict[str, float]]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def report(compare: Compare, op: str, dtype: str, ours: Callable[[], None], **peers: Callable[[], None]) -> None:
    compare(f"{op}, {dtype}, {kernels(DEVICE)}", ours, peers, items=TOKENS, unit="token")


@each_dtype
@pytest.mark.parametrize("p", [0.0, P])
def bench_attention(compare: Compare, dtype: str, p: float) -> None:
    query = normal(TOKENS, HEADS, HEAD_DIM, dtype=DTYPES[dtype])
    key_value = normal(TOKENS, 2, HEADS, HEAD_DIM, dtype=DTYPES[dtype])
    cu_seqlens = F.pad(LENGTHS.cumsum(0), (1, 0)).int().to(DEVICE)
    rest = (Lengths(cu_seqlens, cu_seqlens, MAX_LEN), DROPOUT._replace(p=p))
    padded = [normal(BATCH, HEADS, MAX_LEN, HEAD_DIM, dtype=DTYPES[dtype]) for _ in range(3)]
    mask = (torch.arange(MAX_LEN) < LENGTHS[:, None])[:, None, None, :].to(DEVICE)

    def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=p)

    ours = step(lambda *leaves: attention(*leaves, *rest), query, key_value)
    report(compare, "attention", dtype, ours, **{f"padded SDPA, p = {p}": step(sdpa, *padded)})


@each_dtype
def bench_dropout_add_layer_norm(compare: Compare, dtype: str) -> None:
    leaves = [normal(TOKENS, HIDDEN, dtype=DTYPES[dtype]) for _ in range(2)] + [normal(HIDDEN) for _ in range(2)]

    def torchs(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(F.dropout(x, P) + residual, (HIDDEN,), weight.to(x.dtype), bias.to(x.dtype), EPS)

    def ours(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return dropout_add_layer_norm(x, residual, Norm(weight, bias, EPS), DROPOUT)

    report(compare, "dropout_add_layer_norm", dtype, step(ours, *leaves), torch=step(torchs, *leaves))


@each_dtype
def bench_bias_gelu(compare: Compare, dtype: str) -> None:
    leaves = [normal(TOKENS, INTERMEDIATE, dtype=DTYPES[dtype]), normal(INTERMEDIATE)]

    def torchs(x: Tensor, bias: Tensor) -> Tensor:
        return F.gelu(x + bias.to(x.dtype))

    report(compare, "bias_gelu", dtype, step(bias_gelu, *leaves), torch=step(torchs, *leaves))


@each_dtype
def bench_embedding_layer_norm(compare: Compare, dtype: str) -> None:
    entries = (VOCAB_SIZE, 2, MAX_LEN)
    ids = [torch.randint(count, (TOKENS,), generator=GENERATOR).to(DEVICE) for count in entries[:2]]
    ids.append(torch.arange(TOKENS, device=DEVICE) % MAX_LEN)
    cu_seqlens = torch.tensor([*range(0, TOKENS, MAX_LEN), TOKENS], dtype=torch.int32, device=DEVICE)
    leaves = [normal(count, HIDDEN) for count in entries] + [normal(HIDDEN) for _ in range(2)]

    def torchs(word: Tensor, type_: Tensor, position: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        added = F.embedding(ids[0], word) + F.embedding(ids[1], type_) + F.embedding(ids[2], position)
        return F.dropout(F.layer_norm(added, (HIDDEN,), weight, bias, EPS), P).to(DTYPES[dtype])

    def ours(word: Tensor, type_: Tensor, position: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tables, norm = Tables(word, type_, position), Norm(weight, bias, EPS)
        return embedding_layer_norm(Ids(*ids, cu_seqlens), tables, norm, DROPOUT, DTYPES[dtype])[0]

    report(compare, "embedding_layer_norm", dtype, step(ours, *leaves), torch=step(torchs, *leaves))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("preset", sized(["notebook", "base"], smoke=["notebook"]))
def bench_adam(compare: Compare, preset: str, dtype: str) -> None:
    """In bfloat16, ours also writes a copy of the parameters; torch's does not."""
    model = Bert(BertConfig(vocab_size=VOCAB_SIZE, **PRESETS[preset].model))
    parameters = [each.detach().to(DEVICE) for each in model.parameters()]
    gradients = [torch.randn_like(each) for each in parameters]
    moments = [[torch.zeros_like(each) for each in parameters] for _ in range(2)]
    copies = None if dtype == "float32" else [each.bfloat16() for each in parameters]
    count, rate, factor, refused = (torch.tensor(value, device=DEVICE) for value in (1.0, 1e-3, 1.0, 0.0))
    peers = [torch.nn.Parameter(each.clone()) for each in parameters]
    for peer, gradient in zip(peers, gradients, strict=True):
        peer.grad = gradient
    torchs = torch.optim.Adam(peers, fused=True)

    def ours() -> None:
        adam(AdamTensors(parameters, gradients, *moments, copies), count, rate, factor, refused)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    def theirs() -> None:
        torchs.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    name = f"adam, {preset}, {dtype}, {kernels(DEVICE)}"
    millions = sum(each.numel() for each in parameters) / 1e6
    compare(name, ours, {"torch, fused": theirs}, items=millions, unit="M parameters")
