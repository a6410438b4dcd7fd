"""The model against transformers.BertForPreTraining, with the same weights."""

import itertools

import numpy as np
import pytest
import torch
import transformers
from support.dispatched import Dispatched
from support.random_model import LENGTHS, make_config, random_batch, randomised

from bertfast.hub.state_dict import export_state_dict, import_state_dict
from bertfast.model import Bert, head_rows


def theirs_of(model):
    """transformers' model with the weights of ours."""
    values = {name: getattr(model.config, name) for name in model.config.__dataclass_fields__}
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**values)).eval()
    missing, unexpected = theirs.load_state_dict(export_state_dict(model), strict=False)
    assert not unexpected
    assert set(missing) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # tied
    theirs.tie_weights()
    return theirs


def test_both_heads_equal_transformers():
    config = make_config()
    model = randomised(config).eval()
    batch, padded = random_batch(config)
    with torch.no_grad():
        expected = theirs_of(model)(**padded)
        hidden_states = model.hidden_states(batch, torch.float32)
        mlm = model.masked_lm_logits(hidden_states)
        nsp = model.next_sentence_logits(model.pooled(hidden_states[batch.cu_seqlens[:-1].long()]))
    real = padded["attention_mask"].bool()
    torch.testing.assert_close(mlm, expected.prediction_logits[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nsp, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fewer", [0, 7])
def test_the_output_bias_starts_from_frequencies(fewer):
    """With one more occurrence of each word; the corpus may have fewer words than the model."""
    config = make_config()
    head = Bert(config).masked_lm_head
    counts = np.random.default_rng(0).integers(0, 9, config.vocab_size - fewer)
    head.start_from_frequencies(torch.from_numpy(counts))
    seen = np.pad(counts, (0, fewer)) + 1
    expected = np.pad(np.log(seen / seen.sum()), (0, config.padded_vocab_size - config.vocab_size))
    np.testing.assert_allclose(head.bias.detach().numpy(), expected, rtol=1e-6)


def test_losses_and_gradients_equal_transformers():
    """The training pass computes the last layer only where it is read; its losses and gradients are the full pass's."""
    config = make_config()
    model = randomised(config).train()
    batch, padded = random_batch(config)
    count = batch.labels.numel()
    mlm_loss, nsp_loss, _ = model(batch, torch.full((count,), 1 / count), 0, torch.float32)
    (mlm_loss + nsp_loss).backward()

    theirs = theirs_of(model)
    flat = torch.full((sum(LENGTHS),), -100)
    flat[batch.masked_positions] = batch.labels
    labels = torch.full(padded["input_ids"].shape, -100)
    labels[padded["attention_mask"].bool()] = flat
    output = theirs(**padded, labels=labels, next_sentence_label=batch.next_sentence_label)
    output.loss.backward()
    torch.testing.assert_close(mlm_loss + nsp_loss, output.loss, rtol=1e-5, atol=1e-5)

    gradients = Bert(config)
    import_state_dict(gradients, {name: p.grad for name, p in theirs.named_parameters()})
    for (name, ours), expected in zip(model.named_parameters(), gradients.parameters(), strict=True):
        error = (ours.grad - expected).norm() / expected.norm().clamp_min(1e-6)
        assert error < 1e-4, f"{name}: {error}"


def test_the_training_pass_reads_rows_by_no_index():
    """An index's gradient adds up, since a row may be read twice: on a GPU that is a sort and more."""
    config = make_config()
    model = randomised(config).train()
    batch, _ = random_batch(config)
    count = batch.labels.numel()
    with Dispatched() as dispatched:
        losses = model(batch, torch.full((count,), 1 / count), 0, torch.float32)
        torch.autograd.grad(sum(losses), list(model.parameters()))
    assert "aten::index_copy_" in dispatched.names  # of gather_rows: the backward pass is seen
    assert not [name for name in dispatched.names if "index_put" in name]


def test_weights_move_there_and_back():
    model = randomised(make_config())
    copy = Bert(model.config)
    import_state_dict(copy, theirs_of(model).state_dict())
    for name, parameter in model.named_parameters():
        other = dict(copy.named_parameters())[name]
        used = (
            slice(0, model.config.vocab_size) if parameter.shape[0] == model.config.padded_vocab_size else slice(None)
        )
        assert torch.equal(parameter[used], other[used]), name


@pytest.mark.parametrize("predictions_per_sequence", [0, 1, 5])
def test_head_rows(predictions_per_sequence):
    config = make_config()
    batch, _ = random_batch(config, predictions_per_sequence=predictions_per_sequence)
    found = head_rows(batch.cu_seqlens, batch.masked_positions)
    starts = batch.cu_seqlens.tolist()
    rows, ends = [], [0]
    for start, end in itertools.pairwise(starts):
        rows += [start] + [m for m in batch.masked_positions.tolist() if start <= m < end]
        ends.append(len(rows))
    assert found.rows.tolist() == rows
    assert found.cu_seqlens.tolist() == ends
    assert found.rows[found.first].tolist() == starts[:-1]
    assert found.rows[found.masked].tolist() == batch.masked_positions.tolist()


def test_without_predictions_the_loss_is_zero():
    config = make_config()
    model = randomised(config).train()
    batch, _ = random_batch(config, predictions_per_sequence=0)
    mlm_loss, nsp_loss, _ = model(batch, torch.empty(0), 0, torch.float32)
    (mlm_loss + nsp_loss).backward()
    assert mlm_loss.item() == 0
    assert nsp_loss.item() > 0


def test_dropout_is_off_in_eval_and_keyed_by_row_in_training():
    config = make_config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    model = randomised(config)
    batch, _ = random_batch(config)
    with torch.no_grad():
        plain = model.eval().hidden_states(batch, torch.float32)
        assert torch.equal(plain, model.hidden_states(batch, torch.float32, seed=5))
        dropped = model.train().hidden_states(batch, torch.float32, seed=5)
        assert not torch.equal(plain, dropped)
        assert torch.equal(dropped, model.hidden_states(batch, torch.float32, seed=5))
        assert not torch.equal(dropped, model.hidden_states(batch, torch.float32, seed=6))

        # The last sequence alone: another packing, the same keys, the same dropout.
        start = batch.cu_seqlens[-2]
        columns = ("input_ids", "token_type_ids", "position_ids", "row_keys")
        alone = batch._replace(
            **{name: getattr(batch, name)[start:] for name in columns},
            cu_seqlens=torch.tensor([0, LENGTHS[-1]], dtype=torch.int32),
            max_seqlen=LENGTHS[-1],
        )
        torch.testing.assert_close(dropped[start:], model.hidden_states(alone, torch.float32, seed=5))


def test_compiles_fullgraph():
    config = make_config(num_hidden_layers=2, hidden_dropout_prob=0.1)
    model = randomised(config).train()
    batch, _ = random_batch(config)
    count = batch.labels.numel()
    arguments = (batch, torch.full((count,), 1 / count), 3, torch.float32)
    expected = model(*arguments)
    sum(expected).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True)(*arguments)
    sum(compiled).backward()
    torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
