"""The training loop, called from Python; test_pretrain runs it as a command."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.utils.deterministic
from support.graphs import on_the_cpu
from support.small_run import ALONE, CONFIG, CPU, make_model

import bertfast
from bertfast.config import BertConfig
from bertfast.distributed.process_group import handled_by
from bertfast.distributed.world import World
from bertfast.errors import InputError
from bertfast.model import Bert
from bertfast.sampling.sampler import Sampler
from bertfast.training import checkpoint, text_start, trainer
from bertfast.training.job import TrainingJob
from bertfast.training.launch import train
from bertfast.training.run_directory import RunDirectory
from bertfast.training.schedule import learning_rate
from bertfast.training.setup import Setup, prepare


def test_losses_equal_those_of_the_plain_torch_twins(corpus, monkeypatch):
    """Twenty steps with dropout: every kernel against its twin, end to end."""
    config = dataclasses.replace(CONFIG, steps=20)
    native = train(make_model(corpus), corpus, config).history.records
    from bertfast import ops

    monkeypatch.setattr(ops, "DEVICES", ())
    assert ops.kernels(CPU) == "plain torch"
    twins = train(make_model(corpus), corpus, config).history.records
    for ours, theirs in zip(native, twins, strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-4)
        assert ours.nsp_loss == pytest.approx(theirs.nsp_loss, rel=1e-4)


def test_a_run_repeats_itself_bit_for_bit(corpus):
    first, second = (train(make_model(corpus), corpus, CONFIG).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_record_describes_its_step(corpus, tmp_path):
    """The norm is that of the gradient of the plain losses, before clipping; the tokens are those of the batch."""
    config = dataclasses.replace(CONFIG, max_grad_norm=1e-3)
    records = train(make_model(corpus), corpus, config, tmp_path / "run").history.records
    sampler, size = Sampler(corpus, config), config.batch_size
    assert [record.tokens for record in records] == [
        sampler.packed(step * size, size).input_ids.numel() for step in range(config.steps)
    ]
    assert [record.lr for record in records] == [learning_rate(step, config) for step in range(config.steps)]
    model = make_model(corpus)
    prepare(model, corpus, config, ALONE)
    batch = sampler.packed(0, size)
    weights = torch.full((batch.labels.numel(),), 1 / batch.labels.numel())
    sum(model(batch, weights, config.seed, torch.float32)).backward()
    norm = math.sqrt(sum(each.grad.double().square().sum().item() for each in model.parameters()))
    assert records[0].gradient_norm == pytest.approx(norm, rel=1e-4)

    lines = (tmp_path / "run" / "times.jsonl").read_text().splitlines()
    times = [json.loads(line) for line in lines]
    assert [time["step"] for time in times] == [record.step for record in records]
    seconds = [time["seconds"] for time in times]
    assert seconds[0] > 0
    assert seconds == sorted(seconds)


def test_only_a_new_run_of_a_new_model_starts_from_its_text(corpus, tmp_path, monkeypatch):
    """And its clock counts the time that this takes."""
    starts, clock = [], time.perf_counter

    def start(model, text, seed):
        starts.append((text.fingerprint, seed))
        monkeypatch.setattr(time, "perf_counter", lambda: clock() + 1000)
        return True

    monkeypatch.setattr(trainer, "start_from_text", start)
    train(make_model(corpus), corpus, CONFIG)
    assert starts == []
    config = dataclasses.replace(CONFIG, start_from="text", seed=7)
    run = train(make_model(corpus), corpus, config, tmp_path / "run")
    assert starts == [(corpus.fingerprint, 7)]
    longer = dataclasses.replace(config, steps=5)
    train(make_model(corpus), corpus, longer, tmp_path / "run", resume=True)
    lines = (tmp_path / "run" / "times.jsonl").read_text().splitlines()
    assert [1000 < json.loads(line)["seconds"] < 2000 for line in lines] == [True] * 5
    train(run.model, corpus, config)
    assert len(starts) == 1


def test_a_run_is_diagnosed(corpus, said):
    """Before its first step and at its end, once each; a model that was trained before is not called too large."""
    config = dataclasses.replace(CONFIG, steps=30, eval=True, eval_share=0.2)
    model = make_model(corpus, hidden_size=128, num_hidden_layers=1)
    weights = sum(each.numel() for each in model.layers.parameters())
    run = train(model, corpus, config)
    first, last = [line for line in said if line.startswith("warning: ")]
    assert first.startswith(
        f"warning: the model's layers have {weights:,} weights, the text {run.corpus.num_tokens:,} "
    )
    # The words are drawn independently, so their frequencies are all that can be known.
    loss = run.history.evaluations[-1].eval_mlm_loss
    assert last.startswith(
        f"warning: the run ends with an MLM loss of {loss:.2f} on held-out text, and the words' freq"
    )

    said.clear()
    again = train(model, corpus, config)  # from the weights that it has learned
    assert not any("weights" in line for line in said)
    setup = Setup(model, [Sampler(again.corpus, config)], config, ALONE, torch.float32)
    read = sum(record.tokens for record in again.history.records)
    subject = trainer._subject(setup, again.corpus, None)
    assert subject.readings == pytest.approx(read / again.corpus.num_tokens, rel=0.1)


def test_a_run_over_a_built_corpus_needs_no_reader_no_plot_and_no_compiler(corpus):
    script = (
        "import sys\n"
        "absent = ['sentencex', 'pyarrow', 'matplotlib', 'torch._dynamo']  # torch's compiler takes 1 s to import\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "import bertfast\n"
        f"corpus = bertfast.load_corpus({str(corpus.folder)!r})\n"
        "model = bertfast.Bert(bertfast.BertConfig(vocab_size=corpus.vocab_size))\n"
        "config = bertfast.TrainConfig(steps=1, batch_size=2, max_len=24, device='cpu')\n"
        "print(len(bertfast.train(model, corpus, config).history.records))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_run_that_cannot_draw_its_losses_ends_before_it_begins(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"drawing .*loss\.svg needs the package matplotlib: pip install matplotlib"):
        train(make_model(corpus), corpus, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["sop", "none"])
def test_other_objectives(corpus, objective):
    run = train(make_model(corpus), corpus, dataclasses.replace(CONFIG, objective=objective, segments="fill"))
    assert all(math.isfinite(record.mlm_loss) for record in run.history.records)
    assert all((record.nsp_loss == 0) == (objective == "none") for record in run.history.records)


def test_a_non_finite_loss_is_reported(corpus):
    model = make_model(corpus)
    with torch.no_grad():
        model.masked_lm_head.bias.fill_(math.nan)
    with pytest.raises(InputError, match="at step 0 the loss is nan, its gradient's norm nan: lower --lr"):
        train(model, corpus, CONFIG)


@pytest.mark.parametrize("place", ["training.trainer.evaluate", "training.step.Optimizer.step"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"lower --batch-size 12, or compute .* pieces \(--shards 2\), or train .* \(--no-cuda-graph\)$"),
        ({"captured": False}, r"lower --batch-size 12, or compute the batch in more pieces \(--shards 2\)$"),
        ({"captured": False, "shards": 8}, "lower --batch-size 12$"),
    ],
)
def test_out_of_memory_names_the_ways_out(corpus, monkeypatch, place, changes, message):
    """Wherever it happens, and even if a capture that it broke raises another error afterwards."""
    on_the_cpu(monkeypatch)
    world = ALONE._replace(**{"captured": True, **changes})
    config = dataclasses.replace(CONFIG, eval=True, eval_share=0.2)

    def full(*_):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        finally:
            if place == "training.trainer.evaluate":
                raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(f"bertfast.{place}", full)
    with pytest.raises(InputError, match=f"^cpu is out of memory: {message}"):
        trainer.Trainer(TrainingJob(make_model(corpus), corpus, config), world, RunDirectory()).train()


def how_deterministic():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("before", [(False, False, True), (True, True, True), (True, False, False)])
def test_torch_is_deterministic_within_the_run_only(before, deterministic, device):
    """Whatever the settings were before, and however the run ends; and no allocation is filled."""
    untouched, (algorithms, warn_only, filled) = how_deterministic(), before
    try:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled
        world = World(0, 1, [torch.device(device)], [torch.device(device)], deterministic, 8)
        with pytest.raises(ZeroDivisionError), trainer.deterministic_torch(world):
            assert how_deterministic() == ((True, False, False) if deterministic and device == "cuda" else before)
            raise ZeroDivisionError
        assert how_deterministic() == before
    finally:
        torch.use_deterministic_algorithms(untouched[0], warn_only=untouched[1])
        torch.utils.deterministic.fill_uninitialized_memory = untouched[2]


def test_every_step_is_deterministic(corpus, monkeypatch):
    """And the run leaves torch as it was."""
    seen, plain = [], trainer.deterministic_torch
    gpu = World(0, 1, [torch.device("cuda")], [torch.device("cuda")], True, 8)
    monkeypatch.setattr(trainer, "deterministic_torch", lambda world: plain(gpu))
    due = trainer.checkpoint_due

    def noting(*given):
        seen.append(how_deterministic())
        return due(*given)

    monkeypatch.setattr(trainer, "checkpoint_due", noting)
    before = how_deterministic()
    train(make_model(corpus), corpus, CONFIG)
    assert seen == [(True, False, False)] * CONFIG.steps
    assert how_deterministic() == before


def test_other_errors_keep_their_traceback(corpus, monkeypatch):
    def wrong(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("bertfast.training.trainer.evaluate", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(make_model(corpus), corpus, dataclasses.replace(CONFIG, eval=True, eval_share=0.2))


def test_a_signal_after_the_last_step_does_not_stop_the_run(corpus, tmp_path, monkeypatch):
    """Pending writes are waited for then, which can take seconds."""
    close = checkpoint.Writer.close

    def ends_the_process(*_):
        raise AssertionError

    def closing(self):
        signal.raise_signal(signal.SIGTERM)
        close(self)

    monkeypatch.setattr(checkpoint.Writer, "close", closing)
    with handled_by(ends_the_process, signal.SIGTERM):
        train(make_model(corpus), corpus, CONFIG, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_vocabulary_that_does_not_fit(corpus):
    with pytest.raises(InputError, match="tokens, the model only 9"):
        train(Bert(BertConfig(vocab_size=9)), corpus, CONFIG)
    with pytest.raises(InputError, match="--max-len 24 exceeds the model's 20 positions"):
        train(make_model(corpus, max_position_embeddings=20), corpus, CONFIG)


long = pytest.mark.long


@pytest.mark.parametrize(
    ("deterministic", "precision", "keep_vectors"),
    [
        (False, "fp32", 0.0),
        pytest.param(True, "fp32", 0.0, marks=long),
        pytest.param(False, "bf16", 0.0, marks=long),
        pytest.param(False, "fp32", 1.0, marks=long),
        pytest.param(True, "fp32", 1.0, marks=long),
    ],
)
def test_compiled_the_model_learns_the_same(said, corpus, deterministic, precision, keep_vectors):
    """Batches of several sizes, dropout on; deterministic, in several threads."""

    def records(**changes):
        model = make_model(corpus, num_hidden_layers=1)
        model.trained_len = 24
        run = train(model, corpus, dataclasses.replace(config, keep_vectors=keep_vectors, **changes))
        return [record if keep_vectors else record._replace(kept_loss=0.0) for record in run.history.records]

    config = dataclasses.replace(CONFIG, deterministic=deterministic, precision=precision, steps=4)
    plain, compiled = records(), records(compile=True)
    assert ", compiled; kernels" in "".join(said)
    assert torch.compiler.config.cache_key_tag == f"bertfast {bertfast.__version__}"
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("start_from", "least_tokens"), [("random", 0), ("text", 0), ("text", 10**9)])
def test_torchs_defaults_change_nothing(corpus, monkeypatch, deterministic, start_from, least_tokens):
    """A program that computes in float64, or on a GPU, may have set them."""
    monkeypatch.setattr(text_start, "LEAST_TOKENS", least_tokens)
    config = dataclasses.replace(CONFIG, deterministic=deterministic, start_from=start_from, eval=True, eval_share=0.2)
    expected = train(make_model(corpus), corpus, config)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        run = train(make_model(corpus), corpus, config)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert run.history.records == expected.history.records
    assert run.history.evaluations == expected.history.evaluations
    assert all(map(torch.equal, run.model.parameters(), expected.model.parameters()))
