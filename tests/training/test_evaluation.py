"""Evaluation on held-out text: in a run, and as a command."""

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from support.command_line import metrics
from support.small_run import ALONE, CPU, made_up_text, make_model
from support.torch_threads import torch_threads

from bertfast import evaluate as command
from bertfast.config import SamplerConfig, TrainConfig
from bertfast.data.load import load_corpus
from bertfast.errors import InputError
from bertfast.hub.transformers import save_model
from bertfast.reporting.context_free import unigram_entropy
from bertfast.sampling.sampler import Sampler
from bertfast.training.evaluation import HeldOut, evaluate
from bertfast.training.launch import train

CONFIG = TrainConfig(steps=20, batch_size=16, max_len=24, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "train.txt").write_text(made_up_text(0, 60))
    (folder / "held_out.txt").write_text(made_up_text(1, 8))
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    return load_corpus(folder / "train.txt", cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def held_out(folder, corpus):
    return load_corpus(folder / "held_out.txt", tokenizer=corpus.folder, cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def run(folder, corpus, held_out):
    return train(make_model(corpus), corpus, CONFIG, folder / "run", eval_corpus=held_out)


def test_figures_equal_transformers_in_float64(run, held_out, tmp_path):
    """Its BertForPreTraining over padded batches of the same examples."""
    save_model(run.model, tmp_path)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path).double().eval()
    evaluated = HeldOut.of(held_out, CONFIG, CPU)
    assert evaluated.examples == 32  # of 8 documents of 5 sentences
    batch = evaluated.own.padded(0, 32)
    with torch.no_grad():
        outputs = theirs(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    rows = torch.arange(32).unsqueeze(1).expand_as(batch.masked_positions)
    chosen = batch.mlm_weights.bool()
    logits = outputs.prediction_logits[rows, batch.masked_positions][chosen]
    labels = batch.labels[chosen]

    found = evaluate(run.model, evaluated, 7, torch.float32, ALONE)
    assert found.step == 7
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert found.eval_mlm_loss == pytest.approx(loss, rel=1e-5)
    assert found.eval_mlm_perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert found.eval_mlm_accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    pairs, truth = outputs.seq_relationship_logits, batch.next_sentence_label
    assert found.eval_nsp_loss == pytest.approx(torch.nn.functional.cross_entropy(pairs, truth).item(), rel=1e-5)
    assert found.eval_nsp_accuracy == pytest.approx((pairs.argmax(1) == truth).double().mean().item())


def test_the_standard_loss_equals_transformers_in_float64(corpus, held_out, tmp_path):
    """Whatever the run's own kind is."""
    model = make_model(corpus)
    save_model(model, tmp_path)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path).double().eval()
    sampler = Sampler(held_out, SamplerConfig(objective="none", segments="fill", max_len=64))
    assert sampler.num_examples == 40
    batch = sampler.padded(0, 40)
    with torch.no_grad():
        logits = theirs(batch.input_ids, batch.attention_mask, batch.token_type_ids).prediction_logits
    rows = torch.arange(40).unsqueeze(1).expand_as(batch.masked_positions)
    chosen = batch.mlm_weights.bool()
    logits = logits[rows, batch.masked_positions][chosen]
    loss = torch.nn.functional.cross_entropy(logits, batch.labels[chosen]).item()
    for objective, segments, max_len in (("nsp", "sentence", 64), ("sop", "fill", 200), ("none", "sentence", 64)):
        config = dataclasses.replace(CONFIG, objective=objective, segments=segments, max_len=max_len)
        evaluated = HeldOut.of(held_out, config, CPU)._replace(examples=64)
        found = evaluate(model, evaluated, 0, torch.float32, ALONE)
        assert found.eval_standard_mlm_loss == pytest.approx(loss, rel=1e-6)
        assert found.eval_mlm_loss != pytest.approx(loss, rel=1e-3)


def test_examples_of_the_standard_kind_are_evaluated_once(corpus, held_out):
    config = dataclasses.replace(CONFIG, objective="none", max_len=64)
    evaluated = HeldOut.of(held_out, config, CPU)
    assert evaluated.samplers == [evaluated.own]
    found = evaluate(make_model(corpus), evaluated, 0, torch.float32, ALONE)
    assert found.eval_standard_mlm_loss == found.eval_mlm_loss


def test_untrained_positions_are_not_evaluated(held_out):
    """A run of shorter examples leaves the standard ones' last positions as they were."""
    assert HeldOut.of(held_out, dataclasses.replace(CONFIG, max_len=63), CPU).standard is None


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_the_model_as_it_was_and_repeats_itself(corpus, held_out, training):
    model = make_model(corpus).train(training)
    evaluated = HeldOut.of(held_out, CONFIG, CPU)
    first, second = (evaluate(model, evaluated, 0, torch.float32, ALONE) for _ in range(2))
    assert first == second
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("max_len", [24, 64])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(corpus, threads, max_len):
    # The smallest model whose products the library splits differently for three threads than for one.
    model = make_model(corpus, hidden_size=128, intermediate_size=512)
    evaluated = HeldOut.of(corpus, dataclasses.replace(CONFIG, max_len=max_len), CPU)
    with torch_threads(threads):
        found = evaluate(model, evaluated, 0, torch.float32, ALONE)
        assert torch.get_num_threads() == threads
    assert found == evaluate(model, evaluated, 0, torch.float32, ALONE)


def test_masks_depend_on_no_setting_of_the_run(held_out):
    other = dataclasses.replace(CONFIG, seed=5, mlm_probability=0.4, mask_share=0.5, random_share=0.5)
    ours, theirs = (HeldOut.of(held_out, config, CPU).own.packed(0, 32) for config in (CONFIG, other))
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert torch.equal(ours.labels, theirs.labels)


def test_a_perplexity_too_large_for_a_float_is_infinite(corpus, held_out):
    model = make_model(corpus)
    with torch.no_grad():
        model.masked_lm_head.bias[5] = 1e4
    found = evaluate(model, HeldOut.of(held_out, CONFIG, CPU), 0, torch.float32, ALONE)
    assert found.eval_mlm_perplexity == math.inf


@pytest.mark.parametrize("max_len", [24, 64])
@pytest.mark.parametrize(("steps", "batch_size"), [(1, 16), (12, 16), (25, 512), (50, 512), (400, 64), (20_000, 64)])
def test_evaluations_before_the_last_take_little_of_a_run(corpus, steps, batch_size, max_len):
    """At most 2% of the time: 6% of its tokens, as a forward pass takes a third of a step. All have the same size."""
    config = dataclasses.replace(CONFIG, steps=steps, batch_size=batch_size, max_len=max_len)
    held_out = HeldOut.of(corpus, config, CPU)._replace(examples=1024)
    cost = 1.0
    if max_len == 64:
        own, standard = (sampler.plan(0, 1024).lengths.sum().item() for sampler in (held_out.own, held_out.standard))
        cost = 1 + standard / own
    due = [held_out.due(step, config) for step in range(steps)]
    assert due[-1] is held_out
    before = {step + 1: each.examples for step, each in enumerate(due[:-1]) if each}
    assert sum(before.values()) * cost <= 0.02 * 3 * steps * batch_size
    affordable = 0.02 * 3 * steps * batch_size / 10 / cost
    if affordable < 64:
        assert not before
    else:
        assert list(before) == [math.ceil(steps * tenth / 10) for tenth in range(1, 10)]
        (count,) = set(before.values())
        assert count % 64 == 0
        assert affordable - 64 < count or count == 1024


def test_a_run_leaves_torch_its_threads(corpus, two_threads):
    train(make_model(corpus), corpus, dataclasses.replace(CONFIG, eval=True, optimizer="muon"))
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


def test_a_run_evaluates_ten_times_and_logs_it(corpus, tmp_path, said):
    """Before the end on the first of the examples that are evaluated at the end."""
    config = dataclasses.replace(CONFIG, batch_size=550, eval=True, eval_share=0.5)
    run = train(make_model(corpus), corpus, config, tmp_path / "run")
    evaluations = [line for line in metrics(tmp_path / "run") if "eval_mlm_loss" in line]
    assert [line["step"] for line in evaluations] == list(range(1, 20, 2))
    recorded = [entry._asdict() for entry in run.history.evaluations]
    assert evaluations == [{name: value for name, value in entry.items() if value is not None} for entry in recorded]
    assert all(0 < line["eval_nsp_accuracy"] < 1 for line in evaluations)
    assert [line["eval_examples"] for line in evaluations] == [64] * 9 + [120]  # of 30 documents of 5 sentences
    held_out = HeldOut.of(corpus.split(0.5)[1], config, CPU)
    again = evaluate(run.model, held_out._replace(examples=64), 19, torch.float32, ALONE)
    assert again.eval_mlm_loss == pytest.approx(evaluations[-2]["eval_mlm_loss"], rel=0.01)
    # The words are drawn independently: all that can be known of them is their frequencies.
    assert evaluations[-1]["eval_mlm_loss"] == pytest.approx(unigram_entropy(run.corpus.token_counts), rel=0.05)
    assert "evaluating on 120 held-out examples" in said


def test_a_held_out_share_is_not_trained_on(corpus, tmp_path):
    trained_on, held_out = corpus.split(CONFIG.eval_share)
    assert held_out.num_documents == 3
    assert trained_on.num_documents + held_out.num_documents == corpus.num_documents
    assert np.array_equal(np.concatenate([trained_on.tokens, held_out.tokens]), corpus.tokens)
    for part in (trained_on, held_out):
        assert np.array_equal(part.token_counts, np.bincount(part.tokens, minlength=corpus.vocab_size))
    config = dataclasses.replace(CONFIG, steps=1, eval=True, eval_share=0.2)
    run = train(make_model(corpus), corpus, config, tmp_path / "out")
    assert run.corpus.part == (0, 48)
    saved = json.loads((tmp_path / "out" / "run.json").read_text())
    assert saved["corpus"]["part"] == [0, 48]
    assert saved["held_out"]["part"] == [48, 60]
    assert saved["train"]["eval_share"] == 0.2
    assert run.history.evaluations == [
        evaluate(run.model, HeldOut.of(corpus.documents(48, 60), config, CPU), 0, torch.float32, ALONE)
    ]


def test_without_pairs_there_is_no_nsp(corpus, held_out, tmp_path):
    config = dataclasses.replace(CONFIG, steps=1, objective="none")
    run = train(make_model(corpus), corpus, config, tmp_path / "out", eval_corpus=held_out)
    assert run.history.evaluations[0].eval_nsp_loss is None
    assert set(metrics(tmp_path / "out")[-1]) == {
        "step",
        "eval_mlm_loss",
        "eval_mlm_perplexity",
        "eval_mlm_accuracy",
        "eval_examples",
    }


def test_the_command_prints_the_runs_last_figures(run, folder, capsys, monkeypatch):
    monkeypatch.setenv("BERTFAST_CACHE", str(folder / "cache"))
    arguments = ["--model", str(folder / "run"), "--corpus", str(folder / "held_out.txt"), "--device", "cpu"]
    assert command.main([*arguments, "--precision", "fp32"]) == 0
    last = run.history.evaluations[-1]
    assert capsys.readouterr().out == (
        f"MLM loss {last.eval_mlm_loss:.3f} (perplexity {last.eval_mlm_perplexity:.4g}, "
        f"accuracy {last.eval_mlm_accuracy:.1%}), NSP loss {last.eval_nsp_loss:.3f} "
        f"(accuracy {last.eval_nsp_accuracy:.1%})\n"
    )
    arguments += ["--objective", "none", "--max-len", "64"]
    assert command.main([*arguments, "--segments", "sentence"]) == 0
    shown, messages = capsys.readouterr()
    assert "warning: --max-len 64: the model was trained on at most 24 tokens" in messages
    assert "NSP" not in shown
    assert "; on the standard examples: MLM loss " in shown
    assert command.main(arguments) == 0
    assert "standard" not in capsys.readouterr().out  # the examples are the standard ones


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-len", "1000"], "--max-len 1000 exceeds the model's 512 positions"),
        (["--corpus", "nowhere"], "no such file or folder: nowhere"),
        (["--seed", "1"], "unrecognized arguments: --seed 1"),
    ],
)
def test_bad_input_is_one_line(run, folder, capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("BERTFAST_CACHE", str(folder / "cache"))
    arguments = ["--model", folder / "run", "--corpus", folder / "held_out.txt", *arguments]
    assert command.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(f"error: {message}")
    assert not captured.out


def test_a_model_without_a_head_for_pairs(run, tmp_path, capsys):
    """Another library has saved it, so no run.json says that it was trained without pairs."""
    save_model(run.model, tmp_path)
    run.corpus.tokenizer.save(tmp_path, 24)
    transformers.BertForMaskedLM.from_pretrained(tmp_path).save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text("w1 w2 .\nw3 w4 .\n")
    assert command.main(["--model", str(tmp_path), "--corpus", str(tmp_path / "text.txt"), "--device", "cpu"]) == 2
    error = f"error: {tmp_path} has no next-sentence head and no pooler: give --objective none"
    assert capsys.readouterr().err.splitlines()[-1] == error


def test_what_cannot_be_evaluated_on(corpus, held_out, folder):
    with pytest.raises(InputError, match="--eval holds out a share of the corpus, --eval-corpus brings other text"):
        train(make_model(corpus), corpus, dataclasses.replace(CONFIG, eval=True), eval_corpus=held_out)
    other = load_corpus(folder / "held_out.txt", tokenizer="wordpiece", cache_dir=folder / "cache")
    with pytest.raises(InputError, match="the corpus to evaluate on has another tokenizer"):
        train(make_model(corpus), corpus, CONFIG, eval_corpus=other)
    shortest = folder / "one.txt"
    shortest.write_text("\n".join(f"w{i} w{i + 1} ." for i in range(9)))
    one = load_corpus(shortest, tokenizer=corpus.folder, cache_dir=folder / "cache")
    with pytest.raises(InputError, match="the text to evaluate on: the corpus is one document"):
        train(make_model(corpus), corpus, dataclasses.replace(CONFIG, objective="nsp"), eval_corpus=one)
    with pytest.raises(InputError, match="--eval-share must lie between 0 and 1, not 1"):
        dataclasses.replace(CONFIG, eval_share=1)
