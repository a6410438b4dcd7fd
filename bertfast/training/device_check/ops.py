"""Compares every op that has a kernel, forward and backward, with its twin on the same device and input.

The sizes are odd ones, which reach the kernels' edge cases, and the presets' widths.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertfast import ops
from bertfast.distributed.devices import has_bfloat16
from bertfast.ops.adam import adam
from bertfast.ops.arguments import (
    AdamTensors,
    Dropout,
    Ids,
    Lengths,
    Linear,
    LMHead,
    Norm,
    Predictions,
    SelfAttentionLayer,
    Tables,
)
from bertfast.ops.attention import attention
from bertfast.ops.embedding import embedding_layer_norm
from bertfast.ops.feed_forward import feed_forward
from bertfast.ops.fused_mlm_loss import why_not_fused
from bertfast.ops.gelu import bias_gelu
from bertfast.ops.layer_norm import dropout_add_layer_norm
from bertfast.ops.masked_lm_loss import masked_lm_loss
from bertfast.ops.self_attention import self_attention
from bertfast.training.device_check.differences import TOLERANCES, Difference, difference, same_bits

EPS, P, SEED, SITE = 1e-12, 0.2, 7, 3


class Size(NamedTuple):
    lengths: tuple[int, ...]
    """Tokens of each sequence."""
    hidden: int
    heads: int
    words: int

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def __str__(self) -> str:
        return f"{self.tokens} x {self.hidden}"


ODD = [Size((63, 65, 1, 7, 0), 96, 3, 123), Size((1,), 33, 1, 129), Size((5, 130), 1500, 20, 257)]
WIDTHS = [(128, 2), (256, 4), (512, 8), (768, 12), (1024, 16)]  # the presets' hidden sizes and heads


def sizes(device: torch.device) -> list[Size]:
    """On a GPU also every preset's width, and a large batch's number of tokens: more than a launch has blocks."""
    lengths = tuple(5 + 13 * number % 60 for number in range(40))
    if device.type == "cpu":
        return [*ODD, Size(lengths[:8], 128, 2, 2000)]
    wide = [Size(lengths, hidden, heads, 20256) for hidden, heads in WIDTHS]
    return [*ODD, *wide, Size(lengths * 60, 128, 2, 20256)]


def dtypes(device: torch.device) -> list[torch.dtype]:
    """The dtypes that a run can use on the device."""
    return [torch.float32, torch.bfloat16] if device.type == "cpu" or has_bfloat16(device) else [torch.float32]


class Inputs:
    """Random tensors on a device, the same at every call."""

    def __init__(self, device: torch.device, size: Size, dtype: torch.dtype) -> None:
        self.device, self.size, self.dtype = device, size, dtype
        self._generator = torch.Generator(device).manual_seed(size.tokens * 1009 + size.hidden)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)

    def states(self, *shape: int) -> Tensor:
        """Like `normal`, in the activations' dtype."""
        return self.normal(*shape).to(self.dtype)

    def weights(self, out: int, width: int) -> list[Tensor]:
        """A linear layer's weight and bias."""
        return [self.normal(out, width) / width**0.5, self.normal(out)]

    def integers(self, end: int, count: int) -> Tensor:
        return torch.randint(end, (count,), generator=self._generator, device=self.device)

    def row_keys(self) -> Tensor:
        return self.integers(2**60, self.size.tokens)

    def offsets(self) -> Tensor:
        """Each sequence's first row, and the end."""
        return torch.tensor([0, *self.size.lengths], device=self.device).cumsum(0).int()


Outputs = Tensor | tuple[Tensor, ...]


def layers(*leaves: Tensor) -> list[Any]:
    """Weights and biases of linear layers, then of a LayerNorm, as the ops take them."""
    linears = [Linear(*leaves[i : i + 2]) for i in range(0, len(leaves) - 2, 2)]
    return [*linears, Norm(leaves[-2], leaves[-1], EPS)]


def compared(
    what: str,
    function: Callable[..., Outputs],
    leaves: Sequence[Tensor],
    dtype: torch.dtype,
    twin: Callable[..., Outputs] | None = None,
) -> Iterator[Difference]:
    """Compares the kernels' results and gradients with the twin's, and, bit for bit, with those of a second run.

    `twin`: None if `function` runs the twins of its ops where they are asked for.
    """
    found = _results(function, leaves)
    with ops.use_twins(ops.PARTS):
        expected = _results(twin or function, leaves)
    name = f"{what} {str(dtype).removeprefix('torch.')}"
    yield difference(name, found, expected, TOLERANCES[dtype])
    yield same_bits(f"{name}, computed twice", found, _results(function, leaves))


def _results(function: Callable[..., Outputs], leaves: Sequence[Tensor]) -> list[Tensor]:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    result = function(*leaves)
    outs = [result] if isinstance(result, Tensor) else [*result]
    device = outs[0].device
    generator = torch.Generator(device).manual_seed(1)
    upstream = [torch.randn(out.shape, generator=generator, device=device).to(out.dtype) for out in outs]
    gradients = torch.autograd.grad(outs, leaves, upstream, materialize_grads=True)
    return [*(out.detach() for out in outs), *gradients]


def check_bias_gelu(inputs: Inputs) -> Iterator[Difference]:
    columns = 4 * inputs.size.hidden
    leaves = [inputs.states(inputs.size.tokens, columns), inputs.normal(columns)]
    yield from compared(str(inputs.size), bias_gelu, leaves, inputs.dtype)


def check_dropout_add_layer_norm(inputs: Inputs) -> Iterator[Difference]:
    tokens, hidden, rule = inputs.size.tokens, inputs.size.hidden, Dropout(inputs.row_keys(), P, SEED, SITE)
    leaves = [
        inputs.states(tokens, hidden),
        inputs.states(tokens, hidden),
        inputs.normal(hidden),
        inputs.normal(hidden),
    ]

    def function(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Outputs:
        return dropout_add_layer_norm(x, residual, Norm(weight, bias, EPS), rule)

    yield from compared(str(inputs.size), function, leaves, inputs.dtype)


def check_embedding_layer_norm(inputs: Inputs) -> Iterator[Difference]:
    size, rule = inputs.size, Dropout(inputs.row_keys(), P, SEED, SITE)
    words, types = (inputs.integers(entries, size.tokens) for entries in (size.words, 2))
    offsets = inputs.offsets()
    positions = torch.cat([torch.arange(length, device=inputs.device) for length in size.lengths])
    ids = Ids(words, types, positions, offsets)
    leaves = [inputs.normal(entries, size.hidden) for entries in (size.words, 2, 512)]
    leaves += [inputs.normal(size.hidden), inputs.normal(size.hidden)]

    def function(*leaves: Tensor) -> Outputs:
        tables, norm = Tables(*leaves[:3]), Norm(leaves[3], leaves[4], EPS)
        result, words_table = embedding_layer_norm(ids, tables, norm, rule, inputs.dtype)
        return result, words_table.to(inputs.dtype)  # a CPU keeps the table in float32

    yield from compared(str(size), function, leaves, inputs.dtype)


def check_attention(inputs: Inputs) -> Iterator[Difference]:
    size, offsets, keys = inputs.size, inputs.offsets(), inputs.row_keys()
    width = size.hidden // size.heads
    leaves = [inputs.states(size.tokens, size.heads, width), inputs.states(size.tokens, 2, size.heads, width)]
    lengths, rule = Lengths(offsets, offsets, max(size.lengths)), Dropout(keys, P, SEED, SITE)
    yield from compared(
        str(size), lambda query, key_value: attention(query, key_value, lengths, rule), leaves, inputs.dtype
    )


def check_self_attention(inputs: Inputs) -> Iterator[Difference]:
    """For all tokens, and for only the last ones of each sequence, as in a run's last layer."""
    size, offsets, hidden = inputs.size, inputs.offsets(), inputs.size.hidden
    some = torch.tensor([length // 3 for length in size.lengths])
    ends = offsets[1:].tolist()
    chosen = [row for end, count in zip(ends, some.tolist(), strict=True) for row in range(end - count, end)]
    rows = torch.tensor(chosen, dtype=torch.int64, device=inputs.device)
    cu_some = torch.cat([torch.zeros(1), some.cumsum(0)]).int().to(inputs.device)
    parameters = [*inputs.weights(hidden, hidden), *inputs.weights(2 * hidden, hidden), *inputs.weights(hidden, hidden)]
    leaves = [inputs.states(size.tokens, hidden), *parameters, inputs.normal(hidden), inputs.normal(hidden)]
    keys = inputs.row_keys()
    for what, asked, cu_queries, row_keys in (("all", None, offsets, keys), ("some", rows, cu_some, keys[rows])):
        if not row_keys.numel():
            continue
        lengths = Lengths(cu_queries, offsets, max(size.lengths))
        drops = Dropout(row_keys, P, SEED, SITE), Dropout(row_keys, P, SEED, SITE + 1)

        def function(*leaves: Tensor, asked: Any = asked, lengths: Any = lengths, drops: Any = drops) -> Outputs:
            query, key_value, output, norm = layers(*leaves[1:])
            layer = SelfAttentionLayer(query, key_value, output, norm, size.heads)
            return self_attention(leaves[0], asked, lengths, layer, *drops)

        yield from compared(f"{size} {what}", function, leaves, inputs.dtype)


def check_feed_forward(inputs: Inputs) -> Iterator[Difference]:
    hidden, rule = inputs.size.hidden, Dropout(inputs.row_keys(), P, SEED, SITE)
    parameters = [*inputs.weights(4 * hidden, hidden), *inputs.weights(hidden, 4 * hidden)]
    leaves = [inputs.states(inputs.size.tokens, hidden), *parameters, inputs.normal(hidden), inputs.normal(hidden)]

    def function(x: Tensor, *rest: Tensor) -> Outputs:
        intermediate, output, norm = layers(*rest)
        return feed_forward(x, intermediate, output, norm, rule)

    yield from compared(str(inputs.size), function, leaves, inputs.dtype)


def check_masked_lm_loss(inputs: Inputs, fused: bool = False) -> Iterator[Difference]:
    size, hidden = inputs.size, inputs.size.hidden
    rows, padded = max(1, size.tokens // 7), -(-size.words // 128) * 128
    positions = torch.arange(rows, device=inputs.device) * (size.tokens // rows)
    weights = torch.full((rows,), 1 / rows, dtype=torch.float32, device=inputs.device)
    predictions = Predictions(positions, inputs.integers(size.words, rows), weights)
    head = [*inputs.weights(hidden, hidden), inputs.normal(hidden), inputs.normal(hidden)]
    leaves = [inputs.states(size.tokens, hidden), *head, *inputs.weights(padded, hidden)]

    def function(states: Tensor, *rest: Tensor, by_kernel: bool = False) -> Outputs:
        lm_head = LMHead(Linear(*rest[:2]), Norm(rest[2], rest[3], EPS), Linear(*rest[4:]), size.words)
        return masked_lm_loss(states, predictions, lm_head, by_kernel)

    by_kernel = functools.partial(function, by_kernel=fused)
    yield from compared(f"{size}, {size.words} words", by_kernel, leaves, inputs.dtype, function)


def check_fused_mlm_loss(inputs: Inputs) -> Iterator[Difference]:
    if why_not_fused(inputs.size.hidden, inputs.dtype, inputs.device) is None:
        yield from check_masked_lm_loss(inputs, fused=True)


def check_adam(inputs: Inputs) -> Iterator[Difference]:
    """Three steps with tensors that are empty, shorter and longer than a thread's part, or as large as a word table."""
    size = inputs.size
    shapes = [(1,), (0,), (3, 33), (4097,), (size.words, size.hidden)]
    start = [[inputs.normal(*shape) for shape in shapes] for _ in range(2)]
    copied = inputs.dtype == torch.bfloat16

    def steps() -> list[Tensor]:
        parameters, gradients = ([each.clone() for each in kind] for kind in start)
        averages, squares = ([torch.zeros_like(each) for each in parameters] for _ in range(2))
        copies = [each.to(torch.bfloat16) for each in parameters] if copied else None
        for count in range(1, 4):
            scalars = (torch.tensor(float(each), device=inputs.device) for each in (count, 0.02, 0.3, 0))
            turned = [(2.5 - count) * each for each in gradients]
            adam(AdamTensors(parameters, turned, averages, squares, copies), *scalars)
        return [*parameters, *averages, *squares, *(copies or [])]

    found = steps()
    with ops.use_twins(ops.PARTS):
        expected = steps()
    yield difference(
        f"{size.words} x {size.hidden}{' with copies' * copied}", found, expected, TOLERANCES[inputs.dtype]
    )


CHECKS: dict[str, Callable[[Inputs], Iterator[Difference]]] = {
    "bias_gelu": check_bias_gelu,
    "dropout_add_layer_norm": check_dropout_add_layer_norm,
    "embedding_layer_norm": check_embedding_layer_norm,
    "attention": check_attention,
    "self_attention": check_self_attention,
    "feed_forward": check_feed_forward,
    "masked_lm_loss": check_masked_lm_loss,
    "fused_mlm_loss": check_fused_mlm_loss,
    "adam": check_adam,
}


def check(op: str, device: torch.device) -> Iterator[Difference]:
    """Checks an op for every size and dtype."""
    for dtype in dtypes(device):
        for size in sizes(device):
            yield from CHECKS[op](Inputs(device, size, dtype))
