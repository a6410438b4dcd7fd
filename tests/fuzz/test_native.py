"""Fuzzes every entry point of the extension: it raises a Python exception or works, whatever its arguments.

It never crashes and never writes outside its outputs. Each entry has a builder of valid arguments, some of which are
then corrupted. Tensors lie between guard bytes, which must not change. An accepted call, repeated, must give the same
bytes.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertfast._native import native
from bertfast.distributed.threads import threads_restored
from bertfast.sampling.batch import PackedBatch, PaddedBatch

GUARD, PATTERN = 256, 0xA5


class Memory:
    """Tensors between guard bytes; sometimes without any, so that AddressSanitizer sees accesses beyond them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.guard = rng.choice([0, GUARD])
        self.bases: list[torch.Tensor] = []

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32, offset: int = 0) -> torch.Tensor:
        size = int(np.prod(shape)) * dtype.itemsize
        base = torch.full((size + 2 * self.guard + offset,), PATTERN, dtype=torch.uint8)
        self.bases.append(base)
        begin = self.guard + offset
        return base[begin : begin + size].view(dtype).view(shape)

    def of(self, values: Any, dtype: torch.dtype) -> torch.Tensor:
        array = np.asarray(values)
        tensor = self.empty(*array.shape, dtype=dtype)
        tensor.copy_(torch.from_numpy(array.copy()).to(dtype))
        return tensor

    def floats(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.of(np.random.default_rng(self.rng.randrange(2**32)).standard_normal(shape), dtype)

    def ints(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return self.of(np.random.default_rng(self.rng.randrange(2**32)).integers(low, high, shape), dtype)

    def check(self) -> None:
        for base in self.bases:
            assert (base[: self.guard] == PATTERN).all()
            assert (base[len(base) - self.guard :] == PATTERN).all()


# --- Valid arguments ---

Arguments = dict[str, Any]


def float_type(rng: random.Random) -> torch.dtype:
    return rng.choice([torch.float32, torch.bfloat16])


def size(rng: random.Random) -> int:
    return rng.choice([0, 1, 2, 3, 7, 16, 17, 40])


def dropout_rule(rng: random.Random, place: str) -> Arguments:
    return {"p": rng.choice([0.0, 0.1, 0.999]), "seed": rng.randrange(2**63), place: rng.randrange(2**16)}


def bias_gelu(rng: random.Random, memory: Memory) -> Arguments:
    dtype, rows, columns = float_type(rng), size(rng), size(rng)
    x, bias = memory.floats(rows, columns, dtype=dtype), memory.floats(columns)
    return {"x": x, "bias": bias, "out": memory.empty(rows, columns, dtype=dtype)}


def column_sums(rng: random.Random, memory: Memory) -> Arguments:
    rows, columns = size(rng), size(rng)
    return {"x": memory.floats(rows, columns, dtype=float_type(rng)), "sums": memory.empty(columns)}


def matrix_product(rng: random.Random, memory: Memory) -> Arguments:
    dtype, rows, depth, columns = float_type(rng), size(rng), size(rng), size(rng)

    def factor(name: str, *sides: int) -> Arguments:
        transposed = rng.random() < 0.5
        stored = reversed(sides) if transposed else sides
        return {name: memory.floats(*stored, dtype=dtype), f"{name}_transposed": transposed}

    to = memory.floats(rows, columns, dtype=rng.choice([torch.float32, dtype]))
    factors = {**factor("left", rows, depth), **factor("right", depth, columns)}
    return {**factors, "to": to, "add": rng.random() < 0.5}


def bias_gelu_backward(rng: random.Random, memory: Memory) -> Arguments:
    dtype, rows, columns = float_type(rng), size(rng), size(rng)
    grad, x = (memory.floats(rows, columns, dtype=dtype) for _ in range(2))
    grad_x, grad_bias = memory.empty(rows, columns, dtype=dtype), memory.empty(columns)
    arguments = {"grad": grad, "x": x, "bias": memory.floats(columns), "grad_x": grad_x, "grad_bias": grad_bias}
    return {**arguments, "partial": None}


def deferred_biases(rng: random.Random, memory: Memory, **columns: int) -> Arguments:
    return {name: memory.floats(count) for name, count in columns.items() if rng.random() < 0.5}


def dropout_add_layer_norm(rng: random.Random, memory: Memory) -> Arguments:
    dtype, rows, columns = float_type(rng), size(rng), size(rng)
    return {
        "x": memory.floats(rows, columns, dtype=dtype),
        "residual": memory.floats(rows, columns, dtype=dtype),
        "weight": memory.floats(columns),
        "bias": memory.floats(columns),
        "eps": 1e-12,
        "row_keys": memory.ints(0, 2**62, rows),
        **dropout_rule(rng, "place"),
        "out": memory.empty(rows, columns, dtype=dtype),
        "moments": memory.empty(rows, 2),
        **deferred_biases(rng, memory, x_bias=columns),
    }


def dropout_add_layer_norm_backward(rng: random.Random, memory: Memory) -> Arguments:
    dtype, rows, columns = float_type(rng), size(rng), size(rng)
    return {
        "grad": memory.floats(rows, columns, dtype=dtype),
        "x": memory.floats(rows, columns, dtype=dtype),
        "residual": memory.floats(rows, columns, dtype=dtype),
        "weight": memory.floats(columns),
        "moments": memory.floats(rows, 2),
        "row_keys": memory.ints(0, 2**62, rows),
        **dropout_rule(rng, "place"),
        "grad_x": memory.empty(rows, columns, dtype=dtype),
        "grad_residual": memory.empty(rows, columns, dtype=dtype),
        "grad_weight": memory.empty(columns),
        "grad_bias": memory.empty(columns),
        "partial": None,
        **deferred_biases(rng, memory, x_bias=columns),
    }


def embedding_tables(rng: random.Random, memory: Memory, tokens: int, hidden: int) -> tuple[Arguments, list[int]]:
    entries = [rng.choice([1, 2, 9, 70]) for _ in range(3)]
    names = ("input_ids", "token_type_ids", "position_ids")
    ids = {name: memory.ints(0, count, tokens) for name, count in zip(names, entries, strict=True)}
    weights = ("word_weight", "type_weight", "position_weight")
    tables = {name: memory.floats(count, hidden) for name, count in zip(weights, entries, strict=True)}
    return {**ids, **tables}, entries


def embedding_layer_norm(rng: random.Random, memory: Memory) -> Arguments:
    tokens, hidden = size(rng), size(rng)
    tables, _ = embedding_tables(rng, memory, tokens, hidden)
    return {
        **tables,
        "weight": memory.floats(hidden),
        "bias": memory.floats(hidden),
        "eps": 1e-12,
        "row_keys": memory.ints(0, 2**62, tokens),
        **dropout_rule(rng, "place"),
        "out": memory.empty(tokens, hidden, dtype=float_type(rng)),
        "moments": memory.empty(tokens, 2),
    }


def embedding_layer_norm_backward(rng: random.Random, memory: Memory) -> Arguments:
    tokens, hidden = size(rng), size(rng)
    tables, (words, types, positions) = embedding_tables(rng, memory, tokens, hidden)
    return {
        "grad": memory.floats(tokens, hidden, dtype=float_type(rng)),
        **tables,
        "weight": memory.floats(hidden),
        "moments": memory.floats(tokens, 2),
        "row_keys": memory.ints(0, 2**62, tokens),
        **dropout_rule(rng, "place"),
        "grad_sum": memory.empty(tokens, hidden),
        "grad_word": memory.floats(words, hidden),
        "grad_type": memory.empty(types, hidden),
        "grad_position": memory.floats(positions, hidden),
        "grad_weight": memory.empty(hidden),
        "grad_bias": memory.empty(hidden),
        **dict.fromkeys(["word_order", "word_begin", "cu_seqlens", "partial"]),
    }


def sequences(rng: random.Random, memory: Memory) -> tuple[Arguments, int, int]:
    lengths = [(rng.choice([0, 1, 5, 33]), rng.choice([1, 4, 33])) for _ in range(rng.choice([0, 1, 3]))]
    offsets = np.cumsum([(0, 0), *lengths], axis=0)
    cu_seqlens = {
        "cu_seqlens_q": memory.of(offsets[:, 0], torch.int32),
        "cu_seqlens_k": memory.of(offsets[:, 1], torch.int32),
        "max_seqlen": max([0, *map(max, lengths)]) + rng.choice([0, 1, 100]),
    }
    return cu_seqlens, int(offsets[-1, 0]), int(offsets[-1, 1])


def attention(rng: random.Random, memory: Memory) -> Arguments:
    dtype, heads, width = float_type(rng), rng.choice([0, 1, 3]), rng.choice([1, 8, 19])
    cu_seqlens, queries, keys = sequences(rng, memory)
    return {
        "query": memory.floats(queries, heads, width, dtype=dtype),
        "key_value": memory.floats(keys, 2, heads, width, dtype=dtype),
        **cu_seqlens,
        "row_keys": memory.ints(0, 2**62, queries),
        **dropout_rule(rng, "site"),
        "out": memory.empty(queries, heads, width, dtype=dtype),
        "log_sum_exp": memory.empty(queries, heads),
        **deferred_biases(rng, memory, query_bias=heads * width, key_value_bias=2 * heads * width),
    }


def attention_backward(rng: random.Random, memory: Memory) -> Arguments:
    forward = attention(rng, memory)
    query, key_value, out = forward["query"], forward["key_value"], forward.pop("out")
    forward["log_sum_exp"].normal_()
    grad = memory.floats(*query.shape, dtype=query.dtype)
    return {
        **forward,
        "grad": grad,
        "grad_query": out,
        "grad_key_value": memory.empty(*key_value.shape, dtype=key_value.dtype),
    }


def adam(rng: random.Random, memory: Memory) -> Arguments:
    """One argument per tensor, named LIST.NUMBER: see `call_adam`."""
    copied, arguments = rng.random() < 0.5, {}
    for number in range(rng.choice([0, 1, 3])):
        shape = rng.choice([(), (size(rng),), (size(rng), size(rng)), (5000,)])
        for name in ADAM_LISTS[: 4 + copied]:
            arguments[f"{name}.{number}"] = memory.floats(
                *shape, dtype=[torch.float32, torch.bfloat16][name == "copies"]
            )
    scalars = {name: memory.floats() for name in ("count", "rate", "factor")}
    betas = {"beta1": rng.choice([0.0, 0.9]), "beta2": 0.999, "eps": 1e-8}
    return {**arguments, **scalars, "refused": memory.of(rng.choice([0.0, 0.0, 1.0]), torch.float32), **betas}


def mlm_loss(rng: random.Random, memory: Memory) -> Arguments:
    rows, columns, slices = size(rng), rng.choice([8, 24, 128]), rng.choice([1, 2, 5])
    vocab_size = rng.randint(1, columns)
    return {
        "logits": memory.floats(rows, columns, dtype=float_type(rng)),
        "bias": memory.floats(columns),
        "labels": memory.ints(0, vocab_size, rows),
        "weights": memory.floats(rows),
        "vocab_size": vocab_size,
        "losses": memory.empty(rows),
        "bias_gradient": rng.choice([None, memory.of(np.zeros((slices, columns)), torch.float32)]),
    }


def fused_mlm_loss_inputs(rng: random.Random, memory: Memory) -> tuple[Arguments, int, int]:
    count, hidden, padded_vocab = size(rng), rng.choice([8, 16, 256]), rng.choice([1, 9, 70])
    vocab_size = rng.randint(1, padded_vocab)
    gathers = rng.random() < 0.5
    sources = count + 3 if gathers else count
    inputs = {
        "rows": memory.floats(sources, hidden, dtype=torch.bfloat16),
        "positions": memory.of(np.arange(count), torch.int64) if gathers else None,
        "decoder": memory.floats(padded_vocab, hidden, dtype=torch.bfloat16),
        "bias": memory.floats(padded_vocab),
        "labels": memory.ints(0, vocab_size, count),
        "weights": memory.floats(count),
        "vocab_size": vocab_size,
    }
    return inputs, count, rng.choice([1, 3])


def fused_mlm_loss(rng: random.Random, memory: Memory) -> Arguments:
    inputs, count, splits = fused_mlm_loss_inputs(rng, memory)
    return {
        **inputs,
        "partial": memory.empty(splits, count, 2),
        "label_logits": memory.empty(count),
        "losses": memory.empty(count),
        "statistics": memory.empty(count, 4),
    }


def fused_mlm_loss_backward(rng: random.Random, memory: Memory) -> Arguments:
    inputs, count, splits = fused_mlm_loss_inputs(rng, memory)
    rows, decoder = inputs["rows"], inputs["decoder"]
    return {
        **inputs,
        "statistics": memory.floats(count, 4),
        "grad": memory.floats(),
        "partial": memory.empty(splits, count, rows.shape[1]),
        "grad_rows": memory.empty(*rows.shape, dtype=torch.bfloat16),
        "grad_decoder": memory.empty(*decoder.shape, dtype=torch.bfloat16),
        "grad_bias": memory.empty(len(decoder)),
    }


VOCABULARY = 40


def sampler_options(rng: random.Random, _: Memory) -> Arguments:
    objective, drop = rng.choice(["nsp", "sop", "none"]), rng.random() < 0.2
    return {
        "seed": rng.randrange(2**64),
        "objective": objective,
        "max_len": rng.choice([5, 6, 16, 64]),
        "any_negative": rng.random() < 0.5,
        "drop": drop and objective != "none",
        "fill": not drop and rng.random() < 0.5,
        "masking": rng.choice(["token", "whole_word", "span"]),
        "short_below": rng.choice([0, 2**30, 2**32]),
        "mask_millionths": rng.choice([0, 150_000, 1_000_000]),
        "mask_below": rng.choice([0, 2**31]),
        "random_below": rng.choice([2**31, 2**32]),
        "vocab_size": VOCABULARY,
        "pad": 0,
        "cls": 2,
        "sep": 3,
        "mask": 4,
        "specials": [0, 1, 2, 3, 4],
    }


def sampler_arrays(rng: random.Random, memory: Memory, options: Arguments) -> Arguments:
    lengths = [[rng.choice([1, 2, 5, 30]) for _ in range(rng.choice([1, 2, 4]))] for _ in range(4)] + [[2, 3]]
    sentences = np.cumsum([0, *[length for document in lengths for length in document]])
    documents = np.cumsum([0, *map(len, lengths)])
    pairs = int(documents[-1]) - len(lengths)
    dtype = rng.choice([torch.uint16, torch.uint32])
    arrays = {
        "tokens": memory.ints(5, VOCABULARY, int(sentences[-1]), dtype=dtype),
        "sentence_offsets": memory.of(sentences, torch.int64),
        "document_offsets": memory.of(documents, torch.int64),
        "anchors": memory.ints(0, pairs, 7) if options["drop"] else None,
        "continuation": None,
    }
    if options["masking"] != "token":
        arrays["continuation"] = memory.ints(0, 2, VOCABULARY, dtype=torch.uint8)
    return arrays


def sampler(rng: random.Random, memory: Memory) -> Arguments:
    options = sampler_options(rng, memory)
    return {"options": native.SamplerOptions(**options), **sampler_arrays(rng, memory, options)}


def planned(rng: random.Random, memory: Memory) -> tuple[Any, Arguments, Arguments]:
    """A sampler, its options, and the arguments of `plan` for some of its examples."""
    options = sampler_options(rng, memory)
    native_sampler = native.Sampler(options=native.SamplerOptions(**options), **sampler_arrays(rng, memory, options))
    count = rng.choice([0, 1, 3, 70])
    return (
        native_sampler,
        options,
        {
            "first_example": memory.of([rng.choice([0, 5, 2**40])], torch.int64),
            "examples": memory.empty(count, native.EXAMPLE_FIELDS, dtype=torch.int64),
            "cu_seqlens": memory.empty(count + 1, dtype=torch.int32),
            "cu_masked": memory.empty(count + 1, dtype=torch.int32),
        },
    )


def plan(rng: random.Random, memory: Memory) -> Arguments:
    native_sampler, _, arguments = planned(rng, memory)
    return {"self": native_sampler, **arguments}


def packed(rng: random.Random, memory: Memory) -> Arguments:
    native_sampler, options, arguments = planned(rng, memory)
    native_sampler.plan(**arguments)
    count = len(arguments["examples"])
    tokens, predictions = int(arguments["cu_seqlens"][-1]), int(arguments["cu_masked"][-1])
    sizes = {name: tokens for name in ("input_ids", "token_type_ids", "position_ids", "row_keys")}
    sizes |= {"masked_positions": predictions, "labels": predictions}
    sizes["next_sentence_label"] = 0 if options["objective"] == "none" else count
    fields = {name: memory.empty(number, dtype=torch.int64) for name, number in sizes.items()}
    return {"self": native_sampler, **arguments, **fields}


def padded(rng: random.Random, memory: Memory) -> Arguments:
    native_sampler, options, arguments = planned(rng, memory)
    native_sampler.plan(**arguments)
    count, max_len, most = len(arguments["examples"]), options["max_len"], native_sampler.max_predictions
    del arguments["cu_seqlens"], arguments["cu_masked"]
    fields = {name: memory.empty(count, max_len, dtype=torch.int64) for name in PaddedBatch._fields[:3]}
    fields |= {name: memory.empty(count, most, dtype=torch.int64) for name in ("masked_positions", "labels")}
    fields["mlm_weights"] = memory.empty(count, most)
    fields["next_sentence_label"] = memory.empty(0 if options["objective"] == "none" else count, dtype=torch.int64)
    return {"self": native_sampler, **arguments, **fields}


# --- Calls ---


ADAM_LISTS = ("parameters", "gradients", "exp_avgs", "exp_avg_sqs", "copies")


def call_adam(**arguments: Any) -> None:
    lists: dict[str, Any] = {name: [] for name in ADAM_LISTS}
    for name in [name for name in arguments if "." in name]:
        lists[name.split(".")[0]].append(arguments.pop(name))
    native.adam(**{**lists, "copies": lists["copies"] or None}, **arguments)


def call_sampler(**arguments: Any) -> None:
    """A sampler that is accepted must also work."""
    native_sampler = native.Sampler(**arguments)
    memory, count = Memory(random.Random(1)), 20
    first, examples = torch.tensor([3]), memory.empty(count, native.EXAMPLE_FIELDS, dtype=torch.int64)
    cu_seqlens, cu_masked = (memory.empty(count + 1, dtype=torch.int32) for _ in range(2))
    native_sampler.plan(first, examples, cu_seqlens, cu_masked)
    tokens, predictions = (memory.empty(int(end[-1]), dtype=torch.int64) for end in (cu_seqlens, cu_masked))
    names = ("token_type_ids", "position_ids", "row_keys")
    fields = {name: memory.empty(len(tokens), dtype=torch.int64) for name in names}
    for next_sentence_label in (memory.empty(labelled, dtype=torch.int64) for labelled in (count, 0)):
        with contextlib.suppress(ValueError):  # only one of the two sizes fits the objective
            native_sampler.packed(
                first,
                examples,
                SimpleNamespace(
                    input_ids=tokens,
                    labels=predictions,
                    masked_positions=memory.empty(len(predictions), dtype=torch.int64),
                    cu_seqlens=cu_seqlens,
                    cu_masked=cu_masked,
                    next_sentence_label=next_sentence_label,
                    **fields,
                ),
            )
    memory.check()


def call_method(name: str, batch: type) -> Callable[..., None]:
    def call(**arguments: Any) -> None:
        fields = {field: arguments.pop(field, None) for field in batch._fields}
        getattr(native.Sampler, name)(
            arguments.pop("self"), arguments.pop("first_example"), arguments.pop("examples"), SimpleNamespace(**fields)
        )

    return call


ENTRIES: dict[str, tuple[Callable[..., Any], Callable[[random.Random, Memory], Arguments]]] = {
    "adam": (call_adam, adam),
    "attention": (native.attention, attention),
    "attention_backward": (native.attention_backward, attention_backward),
    "bias_gelu": (native.bias_gelu, bias_gelu),
    "bias_gelu_backward": (native.bias_gelu_backward, bias_gelu_backward),
    "column_sums": (native.column_sums, column_sums),
    "dropout_add_layer_norm": (native.dropout_add_layer_norm, dropout_add_layer_norm),
    "dropout_add_layer_norm_backward": (native.dropout_add_layer_norm_backward, dropout_add_layer_norm_backward),
    "embedding_layer_norm": (native.embedding_layer_norm, embedding_layer_norm),
    "embedding_layer_norm_backward": (native.embedding_layer_norm_backward, embedding_layer_norm_backward),
    "fused_mlm_loss": (native.fused_mlm_loss, fused_mlm_loss),
    "fused_mlm_loss_backward": (native.fused_mlm_loss_backward, fused_mlm_loss_backward),
    "matrix_product": (native.matrix_product, matrix_product),
    "mlm_loss": (native.mlm_loss, mlm_loss),
    "set_threads": (native.set_threads, lambda rng, _: {"most": rng.randint(1, 1 << 16)}),
    "use_isa": (native.use_isa, lambda rng, _: {"name": rng.choice(native.isas())}),
    "SamplerOptions": (native.SamplerOptions, sampler_options),
    "Sampler": (call_sampler, sampler),
    "Sampler.plan": (native.Sampler.plan, plan),
    "Sampler.packed": (call_method("packed", PackedBatch), packed),
    "Sampler.padded": (call_method("padded", PaddedBatch), padded),
}
# Entries whose last check refuses tensors on a CPU.
CUDA_ONLY = {"fused_mlm_loss", "fused_mlm_loss_backward"}
# Entries without arguments.
WITHOUT_ARGUMENTS = {"isa", "isas", "cpu_has_bf16", "cpu_is_intel", "keep_freed_memory"}
# They take an address, which CUDA checks; tests/sampling/test_pinned_memory.py has a build without it.
ADDRESSES = {"pin_read_only", "unpin"}


def test_every_entry_is_fuzzed() -> None:
    entries = {name for name in dir(native) if callable(getattr(native, name)) and not name.startswith("__")}
    methods = {f"Sampler.{name}" for name in vars(native.Sampler) if not name.startswith("_")}
    methods -= {"Sampler.num_examples", "Sampler.max_predictions"}  # properties
    assert {name for name in entries | methods if name not in WITHOUT_ARGUMENTS | ADDRESSES} == set(ENTRIES)


# --- Invalid arguments ---

EXTREMES = [-(2**63), -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**62, 2**63 - 1]
SCALARS: list[Any] = [None, "", "avx2\0", b"x", True, -1, 0, 1, 5, 2**16, 2**31, 2**62, 2**63, 2**64, 10**30, -(2**63)]
SCALARS += [1.5, float("nan"), float("inf"), -0.0, [], [7] * 9, [3, 1], object(), np.int64(3), torch.tensor(3)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8]
DTYPES += [torch.uint16, torch.uint32, torch.bool, torch.complex64]


def resized(tensor: torch.Tensor, rng: random.Random, memory: Memory) -> torch.Tensor:
    shape = list(tensor.shape)
    dimension = rng.randrange(len(shape)) if shape else 0
    if shape:
        shape[dimension] = max(0, shape[dimension] + rng.choice([-1, 1, 3, -shape[dimension]]))
    new = memory.empty(*shape, dtype=tensor.dtype)
    return new.zero_()


def scrambled(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """The tensor with some values replaced by extreme ones, in place."""
    if not tensor.numel():
        return tensor
    flat = tensor.view(-1)
    for _ in range(rng.choice([1, 3])):
        i = rng.randrange(len(flat))
        if tensor.is_floating_point():
            flat[i] = rng.choice([float("nan"), float("inf"), -1e38, 0.0])
        else:
            info = torch.iinfo(tensor.dtype)
            value = min(max(rng.choice([*EXTREMES, int(flat[i]) + 1, int(flat[i]) - 1]), info.min), info.max)
            flat[i : i + 1] = torch.tensor([value], dtype=tensor.dtype)
    return tensor


def without_memory(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    new = tensor.clone()
    new.untyped_storage().resize_(rng.choice([0, new.untyped_storage().nbytes() // 2]))
    return new


def spread(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """The same shape and values, mostly not contiguous."""
    if not tensor.ndim:
        return tensor
    wide = tensor.repeat_interleave(2, dim=-1)
    choices = [lambda: wide[..., ::2], lambda: tensor[:1].expand(tensor.shape) if len(tensor) else tensor]
    if tensor.ndim > 1:
        choices.append(lambda: tensor.transpose(0, 1).contiguous().transpose(0, 1))
    return rng.choice(choices)()


def corrupted(name: str, arguments: Arguments, rng: random.Random, memory: Memory, alone: bool) -> Any:
    value = arguments[name]
    if not isinstance(value, torch.Tensor):
        return rng.choice(SCALARS)
    tensors = [other for other in arguments.values() if isinstance(other, torch.Tensor)]
    other = rng.choice(tensors)
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(SCALARS),
        lambda: value.to(rng.choice(DTYPES)),
        lambda: value.to("meta"),
        lambda: value.to(torch.float32).numpy(),
        lambda: value.tolist(),
        lambda: value[None],
        lambda: value.flatten(),
        lambda: resized(value, rng, memory),
        lambda: resized(value, rng, memory),
        lambda: scrambled(value, rng),
        lambda: scrambled(value, rng),
        lambda: scrambled(value, rng),
        lambda: spread(value, rng),
        lambda: value.to(torch.float32).to_sparse(),
        lambda: other,
        lambda: memory.empty(*value.shape, dtype=value.dtype, offset=1) if memory.guard else value,
    ]
    if alone:
        # Only alone: pybind11's TypeError prints all arguments, and torch crashes printing this.
        kinds.append(lambda: without_memory(value, rng))
    if value.ndim == 1:
        # Shares the other tensor's memory.
        raw = other.contiguous().view(-1).view(torch.uint8)
        bytes_ = value.numel() * value.dtype.itemsize
        if raw.numel() >= bytes_:
            kinds.append(lambda: raw[:bytes_].view(value.dtype))
    return rng.choice(kinds)()


def refusal(call: Callable[..., Any], arguments: Arguments) -> Exception | None:
    """The exception that refused the call, if any. An extension must not raise SystemError or a non-Exception."""
    try:
        call(**arguments)
    except Exception as error:
        assert not isinstance(error, SystemError | AssertionError), error
        return error
    return None


def bytes_of(arguments: Arguments) -> list[bytes]:
    plain = [value for value in arguments.values() if is_readable(value)]
    copies = [torch.empty(value.shape, dtype=value.dtype).copy_(value) for value in plain]
    return [copy.view(-1).view(torch.uint8).numpy().tobytes() for copy in copies]


def fuzz(entry: str, seed: int, corruptions: int) -> None:
    call, build = ENTRIES[entry]
    rng = random.Random(seed)
    native.use_isa(rng.choice(native.isas()))
    memory = Memory(rng)
    arguments = build(rng, memory)
    for name in rng.sample(sorted(arguments), min(corruptions, len(arguments))):
        # torch itself refuses some corruptions, such as a complex tensor as an unsigned one.
        with contextlib.suppress(RuntimeError, TypeError, NotImplementedError):
            arguments[name] = corrupted(name, arguments, rng, memory, corruptions == 1)
    # Logits become their gradients, so the second call must start from the original arguments.
    before = {name: value.clone() for name, value in arguments.items() if is_readable(value)}
    refused = refusal(call, arguments)
    memory.check()
    if entry in CUDA_ONLY:
        assert corruptions or "must be on a CUDA device" in str(refused), (
            "valid arguments are refused for another reason"
        )
    else:
        assert corruptions or refused is None, "valid arguments are refused"
    if refused is None and len(before) == sum(isinstance(value, torch.Tensor) for value in arguments.values()):
        first = bytes_of(arguments)
        for name, value in before.items():
            arguments[name].copy_(value)
        assert refusal(call, arguments) is None
        assert bytes_of(arguments) == first


def is_readable(value: Any) -> bool:
    """Whether the value is a tensor that torch itself can read."""
    if not (isinstance(value, torch.Tensor) and value.is_cpu and value.layout == torch.strided):
        return False
    return value.is_contiguous() and value.nbytes <= value.untyped_storage().nbytes()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    best = native.isa()
    with threads_restored():
        yield
    native.use_isa(best)


SEEDS = {"seed": st.integers(0, 2**64 - 1), "corruptions": st.sampled_from([0, 1, 1, 1, 2, 3])}
HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("entry", ENTRIES)
@given(**SEEDS)
@settings(max_examples=150, derandomize=True, suppress_health_check=HEALTH)
def test_fuzz(entry: str, seed: int, corruptions: int) -> None:
    fuzz(entry, seed, corruptions)


@pytest.mark.long
@pytest.mark.parametrize("entry", ENTRIES)
@given(**SEEDS)
@settings(max_examples=20_000, database=None, suppress_health_check=HEALTH)
def test_fuzz_long(entry: str, seed: int, corruptions: int) -> None:
    fuzz(entry, seed, corruptions)
