"""Averages of the weights before and after training: their arithmetic, their figures, the choice, and whole runs."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from support import planted_labels
from support.command_line import metrics
from support.small_run import CPU

from bertfast.config import EncodeConfig, ProbeConfig, TrainConfig
from bertfast.data.readers.scored_pairs import ScoredPairs
from bertfast.hub.sentence_transformers import save_modules
from bertfast.hub.transformers import load_pretrained, save_model
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.classification import probe_labels
from bertfast.inference.probe.similarity import Correlations, probe_similarity
from bertfast.inference.probe.verdict import VECTORS, Column
from bertfast.pretrain import main as pretrain
from bertfast.reporting.metrics import History
from bertfast.training import averaging
from bertfast.training.averaging import SHARES, Judge, average, choose
from bertfast.training.optimizer import Optimizer
from bertfast.training.run import Run

LABELLED = planted_labels.labelled(300, 0)
PAIRS = ScoredPairs(LABELLED.texts[:60], LABELLED.texts[60:120], [float(i % 5) for i in range(60)])


@pytest.fixture
def files(tmp_path) -> Path:
    planted_labels.write(tmp_path / "labels.tsv", LABELLED)
    planted_labels.write_pairs(tmp_path / "pairs.tsv", PAIRS)
    texts = planted_labels.labelled(400, 7).texts
    (tmp_path / "texts.txt").write_text("\n\n".join("\n".join(texts[i : i + 5]) for i in range(0, 400, 5)))
    return tmp_path


@pytest.fixture
def start(tmp_path) -> Path:
    """A model without a masked-LM head, as transformers saves one."""
    whole = planted_labels.save(tmp_path, knows=True)
    folder = tmp_path / "start"
    folder.mkdir()
    transformers.AutoModel.from_pretrained(whole).save_pretrained(folder)
    planted_labels.tokenizer().save(folder, 64)
    return folder


# ---- the arithmetic


@pytest.mark.parametrize("share", SHARES)
def test_an_average(share):
    rng = np.random.default_rng(0)
    before, after = ({name: rng.normal(size=(7, 5)).astype(np.float32) for name in "ab"} for _ in range(2))
    after["head"] = rng.normal(size=3).astype(np.float32)
    found = average(*({name: torch.tensor(each) for name, each in side.items()} for side in (before, after)), share)
    for name in "ab":
        one, other = (side[name].astype(float) for side in (before, after))
        expected = one + share * (other - one)
        assert found[name].numpy() == pytest.approx(expected, rel=1e-6, abs=1e-7)
        if share in (0, 1):
            assert (found[name].numpy() == expected).all()
    assert (found["head"].numpy() == after["head"]).all()


# ---- the choice


def column(*right: int) -> Column:
    """Shares that get so many of 1,000 texts right, each of them all that a worse share gets right."""
    return Column(
        1000, {f"share {share:g}": (np.arange(1000) < n)[None] for share, n in zip(SHARES, right, strict=True)}
    )


def correlations(*values: float, noise: float = 0.1) -> Correlations:
    rng = np.random.default_rng(0)
    return Correlations(
        {
            f"share {share:g}": np.array([value, *(value + noise * rng.normal(size=200))])
            for share, value in zip(SHARES, values, strict=True)
        }
    )


@pytest.mark.parametrize(
    ("labels", "similarity", "expected"),
    [
        (column(800, 810, 830, 820, 700), None, 0.5),
        (column(800, 810, 830, 820, 840), correlations(70, 69.5, 69.1, 68.5, 60), 0.5),  # the best lose too much
        (column(800, 810, 830, 820, 840), correlations(70, 68, 68, 68, 68), 0.0),
        (column(800, 802, 801, 790, 700), None, 0.0),  # two more texts: less than two standard errors
        (column(800, 800, 800, 800, 800), correlations(70, 75, 75, 75, 75), 0.0),
        (column(800, 850, 850, 790, 780), correlations(70, 72, 72, 72, 72), 0.25),  # the first of equals
        (None, correlations(70, 70.5, 71, 70.9, 60), 0.5),
        (None, correlations(70, 70.05, 69, 68, 60), 0.0),
        (None, correlations(70, 71, 72, 73, 74, noise=9), 0.0),
    ],
)
def test_the_choice(labels, similarity, expected):
    share, reason = choose(labels, similarity)
    assert share == expected
    assert reason.startswith(f"Share {expected:g} is written")
    assert ("chosen on these texts" in reason) == (expected > 0)
    assert ("loses at most 1 point of similarity" in reason) == (not expected and bool(labels and similarity))


def test_the_reason():
    assert choose(column(800, 850, 700, 700, 700), None)[1] == (
        "Share 0.25 is written: with the labels it is 5.0 ± 1.4 points above the model as it came. The share is chosen "
        "on these texts, so its figures flatter it."
    )


# ---- the figures


@pytest.mark.usefixtures("one_strength")
@pytest.mark.parametrize("texts", [300, 1400])
def test_figures_are_those_of_a_probe_of_the_saved_model(files, tmp_path, monkeypatch, texts):
    """With 1,000 labels, or as many as there are."""
    monkeypatch.setattr(averaging, "choose", lambda labels, similarity: (0.75, "by hand"))
    given = planted_labels.labelled(texts, 0)
    planted_labels.write(files / "labels.tsv", given)
    pretrained = load_pretrained(planted_labels.save(tmp_path, knows=True))
    start, trained = pretrained.model.state_dict(), planted_labels.model(knows=False)
    for each in trained.masked_lm_head.parameters():
        torch.nn.init.normal_(each)
    end = {name: each.clone() for name, each in trained.state_dict().items()}
    corpus: Any = None
    run = Run(trained, corpus, TrainConfig(), History(), [CPU], 0.0)
    found = Judge(pretrained, {}, str(files / "labels.tsv"), str(files / "pairs.tsv")).averaged(run).average
    assert found is not None
    assert (found.share, found.reason, [each.share for each in found.judged]) == (0.75, "by hand", list(SHARES))
    assert len({each.labels for each in found.judged}) > 1
    assert len({each.similarity for each in found.judged}) == len(SHARES)
    for each in found.judged:
        folder = tmp_path / f"saved {each.share}"
        folder.mkdir()
        model = planted_labels.model(knows=False)
        model.load_state_dict({name: one.lerp(end[name], each.share) for name, one in start.items()})
        save_model(model, folder)
        planted_labels.tokenizer().save(folder, 64)
        encoder = Encoder.load(folder)
        config = ProbeConfig(labels_each="1000" if texts == 1400 else "all")
        [column] = probe_labels(encoder, given, config=config).columns
        assert (each.labels, found.labels) == (column.accuracy(VECTORS), column.labels)
        assert each.similarity == probe_similarity(encoder, PAIRS).correlations[VECTORS]
        assert each.mlm_loss is None
        if each.share == found.share:
            assert all(torch.equal(one, trained.get_parameter(name)) for name, one in model.named_parameters())


# ---- whole runs


def arguments(files: Path, start: Path, out: Path, *more: object) -> list[str]:
    settings = ["--text-form", "lines", "--steps", 10, "--batch-size", 16, "--max-len", 32, "--device", "cpu"]
    settings += ["--lr", "0.01", "--head-first", "0.4", "--eval"]
    return [str(word) for word in ("--corpus", files / "texts.txt", "--init", start, "--out", out, *settings, *more)]


def both(files: Path) -> list[object]:
    return ["--probe-labels", files / "labels.tsv", "--probe-similarity", files / "pairs.tsv"]


def expected_weights(start: Path, out: Path, share: float, tmp_path: Path) -> dict[str, np.ndarray]:
    """Computed by numpy, from the folder that the run started from and from its last checkpoint."""
    trained = planted_labels.model(knows=False)
    newest = load_file(max((out / "checkpoints").iterdir()))
    with torch.no_grad():
        for name, each in trained.named_parameters():
            each.copy_(torch.from_numpy(newest[f"model.{name}"]))
    (tmp_path / "trained").mkdir(exist_ok=True)
    save_model(trained, tmp_path / "trained")
    after, before = load_file(tmp_path / "trained" / "model.safetensors"), load_file(start / "model.safetensors")
    given = {f"bert.{name}": each.astype(float) for name, each in before.items()}
    return {name: given[name] + share * (each - given[name]) if name in given else each for name, each in after.items()}


@pytest.mark.usefixtures("cache", "one_strength")
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_run_writes_the_average(files, start, tmp_path, monkeypatch, capfd, share):
    """Its checkpoint keeps the trained weights."""
    monkeypatch.setattr(averaging, "choose", lambda labels, similarity: (share, "By hand."))
    whole = tmp_path / "whole"
    assert pretrain(arguments(files, start, whole, *both(files))) == 0
    said = capfd.readouterr().err
    assert "first the masked-LM head alone for 40% of the steps, at 0.002; " in said
    assert "; the vectors that the model came with are kept, weight 20\n" in said
    assert "warning" not in said
    assert said.count("\nBy hand.\n") == 1
    found = load_file(whole / "model.safetensors")
    expected = expected_weights(start, whole, share, tmp_path)
    assert found.keys() == expected.keys()
    for name, each in found.items():
        np.testing.assert_allclose(each, expected[name], rtol=1e-5, atol=1e-7)
        if share in (0, 1):
            assert (each == expected[name]).all()

    written = json.loads((whole / "run.json").read_text())["average"]
    assert (written["share"], written["reason"], written["labels"]) == (share, "By hand.", 240)
    assert [each["share"] for each in written["judged"]] == list(SHARES)
    last = metrics(whole)[-1]
    assert written["judged"][-1]["mlm_loss"] == last["eval_mlm_loss"]
    card = (whole / "README.md").read_text()
    assert f"The weights are start + {share:g} x (trained - start)" in card
    assert "| share | accuracy, 240 labels | similarity | held-out MLM loss |" in card
    assert card.count(" ± ") == 11


@pytest.mark.usefixtures("cache", "one_strength")
def test_a_resumed_run_writes_the_same_average(files, start, tmp_path, monkeypatch):
    monkeypatch.setattr(averaging, "choose", lambda labels, similarity: (0.25, "By hand."))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert pretrain(arguments(files, start, whole, *both(files))) == 0
    written = json.loads((whole / "run.json").read_text())["average"]
    assert pretrain(arguments(files, start, parts, *both(files), "--checkpoint-every", 2)) == 0
    for stage in ("ended", "killed"):
        if stage == "killed":
            max((parts / "checkpoints").iterdir()).unlink()  # it leaves that of step 8
        for name in ("model.safetensors", "README.md", "run.json"):
            (parts / name).unlink()
        assert pretrain(arguments(files, start, parts, *both(files), "--resume")) == 0
        assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert (parts / "README.md").read_bytes() == (whole / "README.md").read_bytes()
        assert json.loads((parts / "run.json").read_text())["average"] == written


@pytest.mark.usefixtures("cache")
def test_two_workers_write_one_workers_average(files, start, tmp_path, monkeypatch):
    monkeypatch.setattr(averaging, "choose", lambda labels, similarity: (0.5, "By hand."))
    for workers in (1, 2):
        more = ["--deterministic", "--gpus", workers, *both(files)]
        assert pretrain(arguments(files, start, tmp_path / f"{workers}", *more)) == 0
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in "12")
    assert one == two


@pytest.mark.usefixtures("cache")
def test_the_encoder_stays_as_it_came_where_nothing_is_certainly_better(files, start, tmp_path, capfd):
    """Only its new masked-LM head comes from the run. With either probe alone."""
    came = load_file(start / "model.safetensors")
    for number, probe in enumerate((both(files)[:2], both(files)[2:])):
        out = tmp_path / f"{number}"
        assert pretrain(arguments(files, start, out, *probe)) == 0
        said = capfd.readouterr().err
        assert "\nShare 0 is written, which keeps what the model came with: no other is certainly better " in said
        found = load_file(out / "model.safetensors")
        assert all((found[f"bert.{name}"] == each).all() for name, each in came.items())
        assert len([name for name in found if name.startswith("cls.predictions")]) == 5


@pytest.mark.usefixtures("cache")
def test_settings_for_a_model_without_a_head(files, start, tmp_path):
    """A head that the model has does not learn first, and then its vectors are free to move."""
    for model, share, weight in ((start, 0.1, 20.0), (planted_labels.save(tmp_path, knows=True), 0.0, 0.0)):
        out = tmp_path / f"out of {model.name}"
        without = [word for word in arguments(files, model, out) if word not in ("--head-first", "0.4")]
        assert pretrain([*without, "--steps", "1"]) == 0
        settings = json.loads((out / "run.json").read_text())["train"]
        assert (settings["head_first"], settings["keep_vectors"]) == (share, weight)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_vectors_are_kept_and_written_as_the_folders_modules_make_them(files, start, tmp_path, pooling):
    modules = EncodeConfig(pooling=pooling, normalize=pooling == "mean", max_len=9)
    save_modules(start, planted_labels.model(knows=False), modules)
    assert pretrain(arguments(files, start, tmp_path / "out", "--steps", 1)) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["train"]["kept_pooling"] == pooling
    written = Encoder.load(tmp_path / "out").defaults(())
    assert written == {"pooling": pooling, "normalize": pooling == "mean", "max_len": 9}


@pytest.mark.usefixtures("cache")
def test_a_stopped_run_writes_the_modules_and_the_forms_too(files, start, tmp_path, monkeypatch):
    save_modules(start, planted_labels.model(knows=False), EncodeConfig(pooling="cls", max_len=9))
    step = Optimizer.step

    def stopping(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        step(self, *arguments)

    monkeypatch.setattr(Optimizer, "step", stopping)
    out = tmp_path / "out"
    assert pretrain(arguments(files, start, out, "--export", "onnx")) == 128 + signal.SIGTERM
    assert Encoder.load(out).defaults(()) == {"pooling": "cls", "normalize": False, "max_len": 9}
    assert (out / "onnx" / "model.onnx").exists()


@pytest.mark.usefixtures("cache", "one_strength")
def test_averages_of_a_start_whose_modules_are_not_ours(files, start, tmp_path, capfd):
    """They are probed by the mean, as the folder that the run writes will be."""
    save_modules(start, planted_labels.model(knows=False), EncodeConfig())
    pooling = start / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    assert pretrain(arguments(files, start, tmp_path / "out", *both(files))) == 0
    assert "the trained model's folder has no such modules" in capfd.readouterr().err


@pytest.mark.usefixtures("cache")
def test_another_start_is_refused(files, start, tmp_path, capfd):
    out = tmp_path / "out"
    assert pretrain(arguments(files, start, out, "--keep-vectors", 0)) == 0
    assert capfd.readouterr().err.count("warning: further training may cost the model more on other text") == 1
    other = tmp_path / "other"
    shutil.copytree(start, other)
    model = transformers.AutoModel.from_pretrained(start)
    with torch.no_grad():
        model.get_parameter("encoder.layer.0.output.dense.bias")[3] += 1e-3
    model.save_pretrained(other)
    before = (out / "model.safetensors").read_bytes()
    assert pretrain(arguments(files, other, out, "--keep-vectors", 0, "--resume", *both(files))) == 2
    error = capfd.readouterr().err
    assert "cannot be resumed exactly" in error
    assert error.splitlines()[-1].startswith("  weights of --init: ")
    assert (out / "model.safetensors").read_bytes() == before
    shutil.copytree(start, tmp_path / "copy")
    assert pretrain(arguments(files, tmp_path / "copy", out, "--keep-vectors", 0, "--resume")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probe-labels", "nowhere.tsv"], "no such file: nowhere.tsv"),
        (["--probe-labels", "one.tsv"], "all texts have the same label, 'x': a probe needs at least two"),
        (["--probe-similarity", "labels.tsv"], "labels.tsv:1: expected a score, a text and a text"),
        (["--probe-similarity", "few.tsv"], "similarity needs at least 10 pairs with different scores: there are 2"),
    ],
)
def test_unusable_files_are_refused_at_once(files, start, tmp_path, monkeypatch, capfd, options, message):
    monkeypatch.chdir(files)
    (files / "one.tsv").write_text("text\tlabel\n" + "g1 b1\tx\n" * 20)
    (files / "few.tsv").write_text("1\tg1\tb1\n2\tg1\tg2\n")
    assert pretrain(arguments(files, start, tmp_path / "out", *options)) == 2
    error = capfd.readouterr().err
    assert error.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_without_scikit_learn(files, start, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    assert pretrain(arguments(files, start, tmp_path / "out", *both(files))) == 2
    assert capfd.readouterr().err == "error: a probe needs scikit-learn: pip install 'bertfast[probe]'\n"
    assert not (tmp_path / "out").exists()
