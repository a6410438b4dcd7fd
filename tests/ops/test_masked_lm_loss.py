"""The masked-LM loss and its gradients, against plain torch in float64."""

from __future__ import annotations

import pytest
import torch
from support.gpu import GPU, on_gpu
from support.op_cases.masked_lm_loss import (
    LARGE,
    SIZES,
    Arguments,
    arguments,
    assert_as_exact_as_torch,
    errors,
    in_dtype,
    masked_lm_loss,
    masked_lm_loss_twin,
    results,
)
from support.torch_threads import torch_threads

from bertfast._native import native
from bertfast.ops import kernels
from bertfast.ops.arguments import Linear, Predictions
from bertfast.ops.masked_lm_loss import _chunk_rows, _linear_cross_entropy


def assert_close(values: Arguments, tolerance: float = 1e-5) -> None:
    truth = results(masked_lm_loss_twin, in_dtype(values, torch.float64))
    for name, error in errors(results(masked_lm_loss, values), truth).items():
        assert error <= tolerance, f"{name}: {error}"


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("size", [*SIZES, LARGE], ids=str)
def test_float32(size: tuple[int, int, int, int], device: str) -> None:
    assert_close(arguments(size, device=device))


@pytest.mark.parametrize("size", [SIZES[0], SIZES[3], LARGE], ids=str)
def test_every_instruction_set(isa: str, size: tuple[int, int, int, int]) -> None:
    assert kernels(torch.device("cpu")) == f"native ({isa})"
    assert_close(arguments(size))


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("size", [*SIZES[1:], LARGE], ids=str)
def test_bfloat16_is_as_exact_as_torch(size: tuple[int, int, int, int], device: str) -> None:
    assert_as_exact_as_torch(masked_lm_loss, arguments(size, torch.bfloat16, device))


def test_bfloat16_on_every_instruction_set(isa: str) -> None:
    assert_as_exact_as_torch(masked_lm_loss, arguments(LARGE, torch.bfloat16))


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("logits", ["outliers", "equal"])
def test_skewed_logits(logits: str, device: str) -> None:
    values = arguments((60, 33, 1000, 1024), device=device)
    if logits == "outliers":
        values["decoder_bias"][::7] = 80.0
        values["decoder_bias"][3::7] = -80.0
    else:
        values["decoder_weight"].zero_()
        values["decoder_bias"].fill_(3e4)
    assert_close(values)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_confident_rows_keep_their_small_gradient(device: str) -> None:
    values = arguments((12, 33, 300, 300), device=device)
    values["decoder_bias"][17] = 40.0
    values["labels"].fill_(17)
    # 1 - p is a difference of nearly equal numbers: of its digits float32 keeps what its resolution allows.
    truth = results(masked_lm_loss_twin, in_dtype(values, torch.float64))
    got = results(masked_lm_loss, values)
    assert (got["decoder_bias"] - truth["decoder_bias"]).abs().max() <= 2.0**-22 * values["weights"].sum()


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_weight_zero_count_for_nothing(dtype: torch.dtype, device: str) -> None:
    values = arguments((20, 33, 129, 256), dtype, device)
    silent = values["weights"].clone()
    silent[5:] = 0.0
    with_silent = results(masked_lm_loss, {**values, "weights": silent})
    alone = {**values, "positions": values["positions"][:5], "labels": values["labels"][:5], "weights": silent[:5]}
    # As many other rows, the products may sum in another order, and bfloat16 results then round to a neighbour.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    truth = {name: value.double() for name, value in results(masked_lm_loss, alone).items()}
    for name, error in errors(with_silent, truth).items():
        assert error <= tolerance, f"{name}: {error}"

    got = results(masked_lm_loss, {**values, "weights": torch.zeros_like(silent)})
    assert all(not value.any() for value in got.values())


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_no_rows(device: str) -> None:
    got = results(masked_lm_loss, arguments((0, 33, 129, 256), device=device))
    assert all(not value.any() for value in got.values())


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_padding_is_never_read_and_gets_no_gradient(device: str) -> None:
    values = arguments((30, 33, 129, 256), device=device)
    clean = results(masked_lm_loss, values)
    values["decoder_weight"][129:] = 1e30
    values["decoder_bias"][129:] = float("nan")
    spoilt = results(masked_lm_loss, values)
    assert torch.equal(clean["loss"], spoilt["loss"])
    for name in ("decoder_weight", "decoder_bias"):
        assert torch.equal(clean[name], spoilt[name])
        assert not clean[name][129:].any()


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0x7FFFFFFF])
def test_every_nan_makes_the_loss_nan(isa: str, bits: int) -> None:
    values = arguments((20, 33, 129, 256))
    values["decoder_bias"][100] = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    assert masked_lm_loss(**values).isnan()


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_without_positions_every_row_counts(device: str) -> None:
    values = arguments((23, 33, 129, 129), device=device)
    gathered = {**values, "positions": torch.arange(23, device=device), "hidden_states": values["hidden_states"][:23]}
    for name, value in results(masked_lm_loss, {**gathered, "positions": None}).items():
        assert torch.equal(value, results(masked_lm_loss, gathered)[name])


def test_loss_is_the_weighted_sum_of_cross_entropies() -> None:
    values = {**arguments((3, 2, 3, 4)), "positions": torch.tensor([0, 2, 3]), "labels": torch.tensor([2, 0, 1])}
    values["decoder_weight"].zero_()
    values["decoder_bias"] = torch.tensor([0.2, 0.3, 0.5, 9.0]).log()
    values["weights"] = torch.tensor([1.0, 2.0, 0.0])
    expected = -torch.tensor(0.5).log() - 2 * torch.tensor(0.2).log()
    torch.testing.assert_close(masked_lm_loss(**values), expected)


@pytest.mark.parametrize("label", [-1, -100, 129, 2**40])
def test_labels_out_of_range_raise(label: int) -> None:
    values = arguments((20, 33, 129, 256))
    values["labels"][7] = label
    with pytest.raises(ValueError, match=rf"labels\[7\] is {label}, outside \[0, vocab_size = 129\)"):
        masked_lm_loss(**values)


@on_gpu
@pytest.mark.parametrize("label", [-1, 129, 2**40])
def test_labels_out_of_range_make_the_loss_nan_on_a_gpu(label: int) -> None:
    values = arguments((20, 33, 129, 256), device="cuda")
    values["labels"][7] = label
    assert masked_lm_loss(**values).isnan()


@pytest.mark.parametrize("rows", [20, 1500])  # in one chunk and in two
def test_the_decoders_gradient_has_its_type(rows: int) -> None:
    values = arguments((rows, 33, 129, 256), torch.bfloat16)
    wide, narrow = (values["decoder_weight"].to(dtype).requires_grad_() for dtype in (torch.float32, torch.bfloat16))
    gradients = [
        torch.autograd.grad(masked_lm_loss(**{**values, "decoder_weight": weight}), weight)[0]
        for weight in (wide, narrow)
    ]
    assert [each.dtype for each in gradients] == [torch.float32, torch.bfloat16]
    assert torch.equal(gradients[0].bfloat16(), gradients[1])


def test_wrong_arguments_raise() -> None:
    values = arguments((20, 33, 129, 256))
    with pytest.raises(ValueError, match="labels must have the shape"):
        masked_lm_loss(**{**values, "labels": values["labels"][:-1]})
    with pytest.raises(TypeError, match="labels must be int64"):
        masked_lm_loss(**{**values, "labels": values["labels"].int()})
    with pytest.raises(ValueError, match="vocab_size must be"):
        masked_lm_loss(**{**values, "vocab_size": 257})
    with pytest.raises(TypeError, match="logits must be float32 or bfloat16"):
        masked_lm_loss(**{**values, "hidden_states": values["hidden_states"].half()})


def test_without_gradients_only_the_loss_is_computed() -> None:
    values = arguments((30, 33, 129, 256))
    expected = results(masked_lm_loss, values)["loss"]
    with torch.no_grad():
        loss = masked_lm_loss(**values)
    assert torch.equal(loss, expected) and not loss.requires_grad
    decoder = Linear(values["decoder_weight"], values["decoder_bias"])
    predictions = Predictions(None, values["labels"], values["weights"])
    _, *gradients = _linear_cross_entropy(values["hidden_states"][:30], decoder, predictions, 129, False)
    assert [gradient.numel() for gradient in gradients] == [0, 0, 0]


@pytest.mark.parametrize("power", [1, 2])
def test_a_second_derivative_is_refused(power: int) -> None:
    values = arguments((5, 33, 129, 129))
    values["decoder_bias"].requires_grad_()
    loss = masked_lm_loss(**values) ** power
    with pytest.raises(RuntimeError, match="not have been used"):
        (gradient,) = torch.autograd.grad(loss, values["decoder_bias"], create_graph=True)
        torch.autograd.grad(gradient.square().sum(), values["decoder_bias"])


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_every_time(dtype: torch.dtype, device: str) -> None:
    values = arguments(LARGE, dtype, device)
    first, again = results(masked_lm_loss, values), results(masked_lm_loss, values)
    for name, value in first.items():
        assert torch.equal(value, again[name])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(threads: int) -> None:
    with torch_threads(threads):
        assert_close(arguments((3, 33, 129, 256)))
        assert_close(arguments((507, 33, 129, 256)))


@pytest.mark.parametrize("needs_gradients", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 7])
def test_opcheck(rows: int, dtype: torch.dtype, needs_gradients: bool) -> None:
    values = arguments((rows, 33, 129, 131), dtype)
    inputs = values["hidden_states"][:rows].clone(), values["decoder_weight"].to(dtype), values["decoder_bias"]
    for each in inputs:
        each.requires_grad_(needs_gradients)
    predictions = Predictions(None, values["labels"], values["weights"])
    torch.library.opcheck(_linear_cross_entropy.registered, (*inputs, *predictions, 129, needs_gradients))


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_equals_eager(dtype: torch.dtype, device: str) -> None:
    values = arguments((40, 33, 129, 256), dtype, device)
    torch._dynamo.reset()
    compiled = results(torch.compile(masked_lm_loss, fullgraph=True), values)
    # What the compiler fuses it also rounds in other places.
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for name, error in errors(compiled, {k: v.double() for k, v in results(masked_lm_loss, values).items()}).items():
        assert error <= tolerance, f"{name}: {error}"


def test_more_rows_than_a_chunk_are_tested() -> None:
    assert max(size[0] for size in SIZES) > 2 * _chunk_rows(torch.empty(0, 33, dtype=torch.bfloat16))


def test_native_kernel_refuses_what_it_cannot_read() -> None:
    def call(columns: int = 16, offset: int = 0, slices: int = 1, vocab_size: int = 9) -> None:
        storage = torch.zeros(2 * columns + offset)
        vector, label = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
        logits, bias = storage[offset:].view(2, columns), torch.zeros(columns)
        native.mlm_loss(logits, bias, label, vector, vocab_size, vector.clone(), torch.zeros(slices, columns))

    call()
    for wrong, refused in (
        ({"columns": 12}, "logits must have a multiple of 8 columns"),
        ({"offset": 1}, "logits must be aligned to 16 bytes"),
        ({"slices": 0}, "bias_gradient must have at least one slice"),
        ({"vocab_size": 0}, "vocab_size must be in"),
        ({"vocab_size": 17}, "vocab_size must be in"),
    ):
        with pytest.raises(ValueError, match=refused):
            call(**wrong)
