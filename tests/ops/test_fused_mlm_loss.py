"""The fused masked-LM loss against plain torch in float64: on a GPU, and its threads stepped on the CPU."""

from __future__ import annotations

import heapq

import pytest
import torch
from support.gpu import GPU, on_gpu
from support.op_cases.masked_lm_loss import (
    Arguments,
    arguments,
    assert_as_exact_as_torch,
    by_name,
    errors,
    in_dtype,
    masked_lm_loss,
    masked_lm_loss_twin,
    results,
)
from support.stepped import SteppedFusedLoss
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast._native import native
from bertfast.ops import masked_lm_loss as module
from bertfast.ops.fused_mlm_loss import (
    BLOCKS,
    _backward_splits,
    _fused_mlm_loss,
    _fused_mlm_loss_backward,
    _splits,
)

fused = by_name(module.masked_lm_loss, fused=True)
# rows, hidden, vocabulary, padded vocabulary: narrow and wide; several splits and one
SIZES = [(7, 96, 128, 128), (252, 128, 129, 256), (70, 256, 200, 256)]
LARGE = [(1100, 256, 6899, 6912), (40_000, 128, 300, 384)]


@pytest.fixture(params=["warps", "warpgroups", GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU; or the CPU, where both ways to share the products between threads are stepped."""
    if request.param == "cuda":
        return "cuda"
    stepped = SteppedFusedLoss(request.param == "warpgroups")
    monkeypatch.setattr(native, "fused_mlm_loss", stepped.fused_mlm_loss)
    monkeypatch.setattr(native, "fused_mlm_loss_backward", stepped.fused_mlm_loss_backward)
    return "cpu"


def bf16(size: tuple[int, int, int, int], device: str) -> Arguments:
    return arguments(size, torch.bfloat16, device)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_as_exact_as_torch(size: tuple[int, int, int, int], device: str) -> None:
    assert_as_exact_as_torch(fused, bf16(size, device))


@on_gpu
@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_ones_too(size: tuple[int, int, int, int]) -> None:
    assert_as_exact_as_torch(fused, bf16(size, "cuda"))


@pytest.mark.parametrize("size", [(1, 40, 123, 123), SIZES[1]], ids=str)
def test_equals_the_chunks(size: tuple[int, int, int, int], device: str) -> None:
    values = bf16(size, device)
    chunks = {name: value.double() for name, value in results(masked_lm_loss, values).items()}
    for name, error in errors(results(fused, values), chunks).items():
        assert error <= 1e-2, f"{name}: {error}"


@pytest.mark.parametrize("logits", ["outliers", "equal"])
def test_skewed_logits(logits: str, device: str) -> None:
    values = bf16((60, 32, 1000, 1024), device)
    if logits == "outliers":
        values["decoder_bias"][::7] = 80.0
        values["decoder_bias"][3::7] = -80.0
    else:
        values["decoder_weight"].zero_()
        values["decoder_bias"].fill_(3e4)
    truth = results(masked_lm_loss_twin, in_dtype(values, torch.float64))
    got = errors(results(fused, values), truth)
    assert got["loss"] <= 1e-2 and got["decoder_bias"] <= 1e-2


def test_rows_of_weight_zero_count_for_nothing(device: str) -> None:
    values = bf16((300, 32, 129, 256), device)
    values["weights"][140:] = 0.0
    alone = {**values, **{name: values[name][:140] for name in ("positions", "labels", "weights")}}
    truth = {name: value.double() for name, value in results(fused, alone).items()}
    for name, error in errors(results(fused, values), truth).items():
        assert error <= 1e-2, f"{name}: {error}"
    values["weights"].zero_()
    assert all(not value.any() for value in results(fused, values).values())


def test_no_rows(device: str) -> None:
    assert all(not value.any() for value in results(fused, bf16((0, 32, 129, 256), device)).values())


def test_padding_is_never_read_and_gets_no_gradient(device: str) -> None:
    values = bf16((30, 32, 129, 256), device)
    clean = results(fused, values)
    values["decoder_weight"][129:] = 1e30
    values["decoder_bias"][129:] = float("nan")
    spoilt = results(fused, values)
    for name in ("loss", "decoder_weight", "decoder_bias"):
        assert torch.equal(clean[name], spoilt[name])
        assert name == "loss" or not clean[name][129:].any()


def test_without_positions_every_row_counts(device: str) -> None:
    values = bf16((23, 32, 129, 129), device)
    gathered = {**values, "positions": torch.arange(23, device=device), "hidden_states": values["hidden_states"][:23]}
    for name, value in results(fused, {**gathered, "positions": None}).items():
        assert torch.equal(value, results(fused, gathered)[name])


@pytest.mark.parametrize(("name", "wrong"), [("labels", -1), ("labels", 129), ("positions", -1), ("positions", 2**40)])
def test_what_is_out_of_range_makes_the_loss_nan(name: str, wrong: int, device: str) -> None:
    values = bf16((20, 32, 129, 256), device)
    values[name][7] = wrong
    assert fused(**values).isnan()


@on_gpu
def test_same_bits_every_time_and_in_a_graph() -> None:
    """Nothing waits for the device, reads it on the host or has a shape that depends on it."""
    values = bf16(SIZES[2], "cuda")
    first = results(fused, values)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        again = results(fused, values)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(fused, values)
    graph.replay()
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, captured[name])


@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize("rows", [0, 7])
def test_opcheck(rows: int, gathers: bool, device: str) -> None:
    values = bf16((rows, 32, 129, 131), device)
    x = values["hidden_states"] if gathers else values["hidden_states"][:rows].clone()
    positions = values["positions"] if gathers else None
    parameters = values["decoder_weight"].bfloat16(), values["decoder_bias"]
    for each in (x, *parameters):
        each.requires_grad_()
    labels = values["labels"], values["weights"]
    inputs = (x, positions, *labels, *parameters, 129)
    torch.library.opcheck(_fused_mlm_loss.registered, inputs)
    plain = [each.detach() if isinstance(each, Tensor) else each for each in inputs]
    loss, statistics = _fused_mlm_loss.registered(*plain)
    torch.library.opcheck(_fused_mlm_loss_backward.registered, (loss, *plain, statistics))


def test_compiled_equals_eager(device: str) -> None:
    values = bf16((40, 32, 129, 256), device)
    torch._dynamo.reset()
    backend = "inductor" if device == "cuda" else "aot_eager"  # stepped threads need no code around them
    compiled = results(torch.compile(fused, fullgraph=True, backend=backend), values)
    for name, error in errors(compiled, {k: v.double() for k, v in results(fused, values).items()}).items():
        assert error <= 2e-2, f"{name}: {error}"


@pytest.mark.parametrize("gathers", [True, False])
def test_what_torch_knows_without_a_gpu(gathers: bool) -> None:
    """Types and shapes of the loss and, through it, of every gradient."""
    values = arguments((20, 32, 129, 256), torch.bfloat16)
    if not gathers:
        values |= {"positions": None, "hidden_states": values["hidden_states"][:20]}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in values.items()}
        for name, value in results(fused, fakes).items():
            expected = torch.empty(()) if name == "loss" else values[name]
            assert (value.shape, value.dtype) == (expected.shape, expected.dtype)


def test_it_refuses_what_it_cannot_compute() -> None:
    values = arguments((20, 32, 129, 256), torch.bfloat16)
    with pytest.raises(ValueError, match="must be on a CUDA device"):
        fused(**values)
    with pytest.raises(TypeError, match="rows must be bfloat16"):
        fused(**{**values, "hidden_states": values["hidden_states"].float()})
    for hidden in (33, 264):
        with pytest.raises(ValueError, match="the hidden size must be a multiple of 8, at most 256"):
            fused(**arguments((20, hidden, 129, 256), torch.bfloat16))


@pytest.mark.parametrize("power", [1, 2])
def test_a_second_derivative_is_refused(power: int) -> None:
    values = arguments((5, 32, 129, 129), torch.bfloat16)
    values["decoder_bias"].requires_grad_()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in values.items()}
        loss = fused(**fakes) ** power
        (gradient,) = torch.autograd.grad(loss, fakes["decoder_bias"], create_graph=True)
        with pytest.raises(RuntimeError, match="no autograd formula was registered"):
            torch.autograd.grad(gradient.square().sum(), fakes["decoder_bias"])


@pytest.mark.parametrize("hidden", [64, 256])
def test_splits_fill_the_device_and_are_never_empty(hidden: int) -> None:
    for count in (0, 1, 129, 3500, 10**6):
        for vocab_size in (1, 65, 20_256):
            splits, tiles = _splits(count, hidden, vocab_size), -(-count // (128 if hidden <= 128 else 64))
            assert 1 <= splits <= -(-vocab_size // 64)
            assert tiles * splits <= max(BLOCKS, tiles)
    assert _splits(3500, 128, 20_256) == 9


@pytest.mark.parametrize(
    ("count", "hidden", "vocab_size"),
    [
        (5120, 128, 20_256),
        (3500, 128, 30_522),
        (640, 128, 20_256),
        (1, 64, 20_256),
        (5000, 256, 30_522),
        (9800, 256, 512),
    ],
)
def test_the_backward_s_blocks_end_together(count: int, hidden: int, vocab_size: int) -> None:
    """The next block starts as soon as one ends. The floor is an even share of the work, or the work of one block."""
    splits, tiles = _backward_splits(count, hidden, vocab_size), -(-count // (128 if hidden <= 128 else 64))
    words = -(-vocab_size // 64)
    assert 1 <= splits <= words
    ends = [0.0] * BLOCKS
    for work in [words / splits] * (tiles * splits) + [float(tiles)] * words:
        heapq.heapreplace(ends, ends[0] + work)
    assert max(ends) <= 1.15 * max(2 * tiles * words / BLOCKS, tiles)
