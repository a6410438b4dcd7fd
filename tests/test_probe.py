"""`python -m bertfast.probe`: what it prints, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import planted_labels

from bertfast import probe
from bertfast.config import ProbeConfig
from bertfast.data.readers.scored_pairs import ScoredPairs
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.classification import probe_labels
from bertfast.inference.probe.similarity import probe_similarity

TRAIN, TEST = planted_labels.labelled(150, 0), planted_labels.labelled(60, 1)
PAIRS = ScoredPairs(TRAIN.texts[:60], TEST.texts, [float(i % 5) for i in range(60)])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return planted_labels.save(tmp_path_factory.mktemp("model"), knows=True)


@pytest.fixture
def files(tmp_path) -> Path:
    planted_labels.write(tmp_path / "train.tsv", TRAIN)
    planted_labels.write(tmp_path / "test.tsv", TEST)
    planted_labels.write_pairs(tmp_path / "pairs.tsv", PAIRS)
    return tmp_path


def run(capsys, model: Path, *arguments: object) -> tuple[int, list[str], list[str]]:
    status = probe.main(["--model", str(model), *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err.splitlines()


@pytest.mark.usefixtures("one_strength")
def test_it_prints_what_the_library_finds(model, files, capsys):
    encoder = Encoder.load(model)
    by_labels = probe_labels(encoder, TRAIN, TEST, ProbeConfig(labels_each="20,all", layer=0)).lines()
    by_pairs = probe_similarity(encoder, PAIRS, ProbeConfig(layer=0)).lines()
    labels = ["--labels", files / "train.tsv", "--test", files / "test.tsv", "--labels-each", "20,all"]
    pairs = ["--similarity", files / "pairs.tsv"]
    assert run(capsys, model, *labels, *pairs, "--layer", 0)[:2] == (0, by_labels + by_pairs)
    assert run(capsys, model, *pairs, "--layer", 0)[:2] == (0, by_pairs)
    assert by_labels[-1].startswith("Pretraining helped with 20 labels (vectors: ")
    assert by_pairs[-1].startswith("Pretraining did not help with similarity (")


@pytest.mark.usefixtures("one_strength")
def test_defaults(model, files, capsys):
    status, out, err = run(capsys, model, "--labels", files / "train.tsv")
    assert status == 0
    assert out[0].startswith("accuracy in % ± two standard errors on 30 texts with 2 labels, the commonest on ")
    assert out[1].lstrip() == "100 labels, 5 draws   120 labels"
    assert err == [
        f"{files / 'train.tsv'}: 150 texts ('sentence'), 2 labels ('label')",
        "warning: no figures for 1,000 labels: they must be 4 to 120 here",
        "learning from 100 labels",
        "learning from 120 labels",
    ]
    assert out == probe_labels(Encoder.load(model), TRAIN).lines()


@pytest.mark.usefixtures("one_strength")
def test_quiet(model, files, capsys):
    arguments = ["--labels", files / "train.tsv", "--labels-each", "10,1000", "--quiet"]
    status, out, err = run(capsys, model, *arguments)
    assert (status, len(out)) == (0, 8)
    assert err == ["warning: no figures for 1,000 labels: they must be 4 to 120 here"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --labels FILE, or --similarity FILE, or both"),
        *(
            (["--similarity", "pairs.tsv", flag, value], f"{flag} is for labels: give --labels FILE, or leave it out")
            for flag, value in [
                ("--test", "test.tsv"),
                ("--labels-each", "all"),
                ("--label-column", "x"),
                ("--delimiter", ";"),
            ]
        ),
        (["--labels", "nowhere.tsv"], "no such file: nowhere.tsv"),
        (["--labels", ""], ". is a folder, pipe or device: name a file"),
        (
            ["--labels", "train.tsv", "--text-column", "body"],
            "train.tsv: no column 'body'; there are 'sentence', 'label'",
        ),
        (
            ["--labels", "train.tsv", "--labels-each", "some"],
            "--labels-each takes numbers and all, as in 100,1000,all,",
        ),
        (
            ["--labels", "train.tsv", "--labels-each", "0"],
            "--labels-each takes numbers and all, as in 100,1000,all, not",
        ),
        (
            ["--labels", "train.tsv", "--labels-each", "9,"],
            "--labels-each takes numbers and all, as in 100,1000,all, no",
        ),
        (
            ["--labels", "train.tsv", "--labels-each", "500"],
            "--labels-each 500: give at least 4, two for each label, and",
        ),
        (["--labels", "one.tsv"], "all texts have the same label, 'x': a probe needs at least two"),
        (
            ["--labels", "train.tsv", "--test", "one.tsv"],
            "the test has the label 'x', which no text to learn from has:",
        ),
        (["--labels", "train.tsv", "--layer", "7"], "--layer 7: the model has the layers 0 (embeddings) to 1"),
        (["--similarity", "train.tsv"], "train.tsv:1: expected a score, a text and a text, separated by tabs: fix"),
    ],
)
def test_wrong_input_is_one_line(model, files, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    (files / "one.tsv").write_text("text\tlabel\n" + "g1 b1\tx\n" * 20)
    status, out, err = run(capsys, model, *arguments, "--quiet")
    assert (status, out) == (2, [])
    assert [line for line in err if line.startswith("error")] == err[-1:]
    assert err[-1].startswith(f"error: {message}")


def test_without_scikit_learn(model, files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    expected = ["error: a probe needs scikit-learn: pip install 'bertfast[probe]'"]
    assert run(capsys, model, "--labels", files / "train.tsv") == (2, [], expected)
