"""The training loop from inside; test_pretrain runs it from outside."""

import dataclasses
import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import bertfast
from bertfast.config import BertConfig, TrainConfig
from bertfast.corpus import load_corpus
from bertfast.devices import choose_devices, make_world
from bertfast.errors import InputError
from bertfast.launch import pretrain
from bertfast.model import Bert
from bertfast.steps import learning_rate

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=3, batch_size=12, max_len=24, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    generator = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    documents = [
        "\n".join(" ".join(generator.choice(words, generator.integers(2, 15))) + " ." for _ in range(5))
        for _ in range(60)
    ]
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "texts.txt").write_text("\n\n".join(documents))
    return load_corpus(folder, cache_dir=folder / "cache")


def make_model(corpus, **changes):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return Bert(BertConfig(vocab_size=corpus.vocab_size, **{**sizes, **changes}))


def test_losses_equal_those_of_the_plain_torch_twins(corpus, monkeypatch):
    """Twenty steps with dropout: every kernel against its twin, end to end."""
    config = dataclasses.replace(CONFIG, steps=20)
    native = pretrain(make_model(corpus), corpus, config).history.records
    from bertfast import ops

    monkeypatch.setattr(ops, "DEVICES", ())
    assert ops.kernels(CPU) == "plain torch"
    twins = pretrain(make_model(corpus), corpus, config).history.records
    for ours, theirs in zip(native, twins, strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-4)
        assert ours.nsp_loss == pytest.approx(theirs.nsp_loss, rel=1e-4)


def test_a_run_repeats_itself_bit_for_bit(corpus):
    first, second = (pretrain(make_model(corpus), corpus, CONFIG).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_over_a_built_corpus_needs_no_reader_and_no_plot(corpus):
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['sentencex', 'pyarrow', 'matplotlib']))  # as if they were not installed\n"
        "import bertfast\n"
        f"corpus = bertfast.load_corpus({str(corpus.folder)!r})\n"
        "model = bertfast.Bert(bertfast.BertConfig(vocab_size=corpus.vocab_size))\n"
        "config = bertfast.TrainConfig(steps=1, batch_size=2, max_len=24, device='cpu')\n"
        "print(len(bertfast.pretrain(model, corpus, config).history.records))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_run_that_cannot_draw_its_losses_ends_before_it_begins(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"drawing .*loss\.svg needs the package matplotlib: pip install matplotlib"):
        pretrain(make_model(corpus), corpus, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["sop", "none"])
def test_other_objectives(corpus, objective):
    run = pretrain(make_model(corpus), corpus, dataclasses.replace(CONFIG, objective=objective, segments="fill"))
    assert all(math.isfinite(record.mlm_loss) for record in run.history.records)
    assert all((record.nsp_loss == 0) == (objective == "none") for record in run.history.records)


def test_several_workers_from_python(corpus, tmp_path):
    """`gpus=2` starts the workers, which hand the trained weights back."""
    one, two = make_model(corpus), make_model(corpus)
    pretrain(one, corpus, CONFIG)
    run = pretrain(two, corpus, dataclasses.replace(CONFIG, gpus=2), say=lambda line: None)
    assert len(run.history.records) == CONFIG.steps
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter, dict(one.named_parameters())[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="--gpus 4096 asks for more CPU workers"):
        pretrain(two, corpus, dataclasses.replace(CONFIG, gpus=4096), say=lambda line: None)


def test_workers_train_on_the_part_they_were_given(corpus):
    part = corpus.documents(10, 25)
    config = dataclasses.replace(CONFIG, steps=2)
    one = pretrain(make_model(corpus), part, config).history.records
    two = pretrain(make_model(corpus), part, dataclasses.replace(config, gpus=2), say=lambda line: None).history.records
    for ours, theirs in zip(two, one, strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-5)


def test_a_gpu_without_kernels_is_told(monkeypatch):
    """Torch sees a GPU, but bertfast was built without nvcc, or the GPU is too old."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    said = []
    assert choose_devices(TrainConfig(), said.append) == [CPU]
    assert said[0].startswith("the GPU stays idle: ")
    with pytest.raises(InputError, match="--device cuda: "):
        choose_devices(TrainConfig(device="cuda"), said.append)


def test_a_loss_that_is_no_number_is_told(corpus):
    model = make_model(corpus)
    with torch.no_grad():
        model.masked_lm_head.bias.fill_(math.nan)
    with pytest.raises(InputError, match="at step 0 the loss is nan, its gradient's norm nan: lower --lr"):
        pretrain(model, corpus, CONFIG)


def test_learning_rate():
    config = TrainConfig(steps=10, warmup=4, lr=1.0)
    rates = [learning_rate(step, config) for step in range(10)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rate(0, TrainConfig(steps=1, warmup=0, lr=1.0)) == 1


def test_a_vocabulary_that_does_not_fit(corpus):
    with pytest.raises(InputError, match="tokens, the model only 9"):
        pretrain(Bert(BertConfig(vocab_size=9)), corpus, CONFIG)
    with pytest.raises(InputError, match="--max-len 24 exceeds the model's 20 positions"):
        pretrain(make_model(corpus, max_position_embeddings=20), corpus, CONFIG)


def test_the_package_offers_its_contract(corpus):
    for name in ("load_corpus", "Bert", "BertConfig", "TrainConfig", "Encoder", "pretrain"):
        assert callable(getattr(bertfast, name))
    importlib.import_module("bertfast.pretrain")  # now `bertfast.pretrain` is the module: it must still be callable
    assert bertfast.pretrain(make_model(corpus), corpus, CONFIG).history.records


long = pytest.mark.long


@pytest.mark.parametrize(
    ("deterministic", "precision"),
    [(False, "fp32"), pytest.param(True, "fp32", marks=long), pytest.param(False, "bf16", marks=long)],
)
def test_compiled_the_model_learns_the_same(corpus, deterministic, precision):
    """Batches of several sizes, dropout on; deterministic, in several threads."""
    config, said = dataclasses.replace(CONFIG, deterministic=deterministic, precision=precision, steps=4), []
    plain = pretrain(make_model(corpus, num_hidden_layers=1), corpus, config).history.records
    config = dataclasses.replace(config, compile=True)
    compiled = pretrain(make_model(corpus, num_hidden_layers=1), corpus, config, say=said.append).history.records
    assert ", compiled; kernels" in "".join(said)
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5 if precision == "fp32" else 1e-2)


def test_replicas_are_not_compiled():
    with pytest.raises(InputError, match="--compile: DataParallel's replicas are not compiled"):
        make_world(dataclasses.replace(CONFIG, compile=True), [CPU] * 2, [CPU] * 2)
