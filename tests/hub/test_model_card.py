"""A run's model card: its header as the Hub's library reads it, its content, and when it is rewritten."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from support.processes import contents
from support.small_run import CONFIG, make_model

from bertfast.config import BertConfig, CorpusConfig
from bertfast.data.load import load_corpus
from bertfast.hub.export import export
from bertfast.hub.forms import FORMS
from bertfast.hub.transformers import load_pretrained
from bertfast.model import Bert
from bertfast.training.launch import train

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def run(corpus):
    """A run with evaluations on held-out text."""
    return train(make_model(corpus), corpus, dataclasses.replace(CONFIG, eval=True, steps=20))


def card_of(run: Any, folder: Path) -> str:
    run.save(folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def row(card: str, name: str) -> str:
    [value] = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", card, re.M)
    return value


# ---- the header


def header(folder: Path) -> dict[str, Any]:
    return hub.ModelCard.load(folder / "README.md").data.to_dict()


def test_the_hub_reads_the_header(run, tmp_path):
    run.save(tmp_path)
    assert header(tmp_path) == {
        "language": "en",
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["bert", "bertfast"],
    }
    assert "# license: yours to choose" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(("given", "expected"), [("no", "no"), ("pt-BR", "pt"), ("DE", "de")])
def test_the_header_has_the_language_of_the_corpus(run, tmp_path, given, expected):
    """In YAML, `no` without quotes is false. The Hub takes no regions."""
    (tmp_path / "a.txt").write_text("Det er en trane. Han gikk. En trane til.\n" * 5)
    corpus = load_corpus(tmp_path / "a.txt", config=CorpusConfig(language=given), cache_dir=tmp_path / "cache")
    dataclasses.replace(run, corpus=corpus).save(tmp_path / "out")
    assert header(tmp_path / "out")["language"] == expected


@pytest.mark.parametrize(
    ("place", "name", "expected"),
    [
        ("models--google--bert_uncased_L-2_H-128_A-2/snapshots/30b0a37c", None, "google/bert_uncased_L-2_H-128_A-2"),
        ("mine", "google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("mine", "bert-base-uncased", "bert-base-uncased"),
        ("mine", "/home/me/secret", None),
        ("mine", "./secret", None),
        ("mine", "mine", None),
        ("mine", 'a"b', None),
        ("mine", None, None),
    ],
)
def test_the_base_model_is_named_if_it_is_known(run, tmp_path, monkeypatch, place, name, expected):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / place
    card = card_of(run, folder)
    assert "| began with | random weights |" in card
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "_name_or_path": name}))
    again = train(load_pretrained(folder).model, run.corpus, CONFIG)
    card = card_of(again, tmp_path / "out")
    assert header(tmp_path / "out").get("base_model") == expected
    assert row(card, "began with") == (f"`{expected}`" if expected else "a model that was trained before")
    assert "secret" not in card
    # A run that starts from this one has the same base model.
    assert load_pretrained(tmp_path / "out").model.base_model == (expected or "")


# ---- the body


@pytest.mark.usefixtures("pictures")
def test_the_content_is_true(run, tmp_path):
    card = card_of(run, tmp_path)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path)
    assert row(card, "parameters") == f"{theirs.num_parameters():,}"
    assert row(card, "length") == "up to 24 tokens; of 512 positions, the others were not trained"
    records = run.history.records
    assert row(card, "tokens seen") == f"{sum(r.tokens for r in records):,}, special tokens included"
    mlm, nsp = ((records[-1][i] + records[-2][i]) / 2 for i in (1, 2))
    assert row(card, "training, mean of the last 2 steps") == f"{mlm:.3f} | {nsp:.3f}"
    [found] = [each for each in run.history.evaluations if each.step == 19]
    assert row(card, "held-out text, after step 20").startswith(f"{found.eval_mlm_loss:.3f} (perplexity ")
    assert row(card, "held-out text, after step 20").endswith(f"(accuracy {found.eval_nsp_accuracy:.1%})")
    assert row(card, "precision") == "float32"
    assert "- of these, the documents 1 to 57 were trained on:" in card
    assert "Evaluated on the documents 58 to 60 of the same text:" in card
    assert "(loss.png)" in card
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_pairs_names_the_untrained_heads(corpus, tmp_path):
    run = train(make_model(corpus), corpus, dataclasses.replace(CONFIG, objective="none", optimizer="muon"))
    card = card_of(run, tmp_path)
    assert row(card, "not trained") == "pooler and next-sentence head"
    assert row(card, "optimizer").startswith("Muon for the matrices")
    assert row(card, "peak learning rate").startswith("0.02 (Muon), 0.005 (AdamW)")
    assert "next-sentence prediction" not in card


@pytest.mark.parametrize("relative", [False, True])
def test_no_folder_of_the_machine_is_named(tmp_path, monkeypatch, relative):
    secret = tmp_path / "secret" / "te`xt\n# s"
    secret.mkdir(parents=True)
    (secret / "texts.txt").write_text("A crane is flying. He just left. The crane came.\n\n" * 60)
    monkeypatch.chdir(secret)
    corpus = load_corpus("." if relative else secret, secret / "texts.txt", cache_dir=tmp_path / "cache")
    run = train(make_model(corpus), corpus, CONFIG, eval_corpus=corpus)
    card = card_of(run, tmp_path / "out")
    assert "trained on `te?xt?# s`, `texts.txt`\n" in card
    assert "secret" not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("form", [None, *FORMS])
def test_the_examples_run(run, tmp_path, form, monkeypatch):
    if form:
        pytest.importorskip({"onnx": "onnxruntime", "sentence-transformers": "sentence_transformers"}[form])
    run.save(tmp_path)
    if form:
        export(tmp_path, form)
    card = (tmp_path / "README.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    assert len(examples) == 2 + bool(form)
    namespace: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    for example in examples[2:] or examples:
        exec(example, namespace)


def test_the_command_to_publish_is_valid(run, tmp_path):
    card = card_of(run, tmp_path)
    (tmp_path / "run.json").touch()
    [command] = re.findall(r"^hf (upload .*)$", card, re.M)
    script = Path(sys.executable).with_name("hf")
    if not script.exists():
        pytest.skip("this huggingface_hub has no command hf")
    done = subprocess.run([script, "upload", "--help"], capture_output=True, text=True)
    for option in re.findall(r"--\w+", command):
        assert option in done.stdout
    patterns = re.findall(r'--exclude "(\S+)"', command)
    left = hub.utils.filter_repo_objects(
        ["run.json", "checkpoints/a", "tensorboard/b", "1_Pooling/c"], ignore_patterns=patterns
    )
    assert list(left) == ["1_Pooling/c"]


# ---- edited and unedited cards


@pytest.mark.parametrize(
    "edit",
    [
        lambda card: card.replace(b"# license: yours to choose", b"license: mit # so", 1),
        lambda card: card.replace(b"\n", b"\r\n"),
        lambda card: card + b"\n",
        lambda card: b"# My model\n",
        lambda card: b"",
        lambda card: b"\xff\xfe",
    ],
)
def test_a_card_that_the_user_edited_is_kept(run, tmp_path, said, edit):
    run.save(tmp_path)
    written = (tmp_path / "README.md").read_bytes()
    edited = edit(written)
    assert edited != written
    (tmp_path / "README.md").write_bytes(edited)
    run.save(tmp_path)
    export(tmp_path, "sentence-transformers")
    assert (tmp_path / "README.md").read_bytes() == edited
    assert said[-2:] == [
        f"{tmp_path}/README.md was edited, or is not bertfast's: it is left as it is",
        f"{tmp_path}/README.md was edited, or is not bertfast's: it is left without the export",
    ]


def test_an_unedited_card_is_rewritten(run, corpus, tmp_path, said):
    train(make_model(corpus), corpus, CONFIG).save(tmp_path / "out")
    run.save(tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == card_of(run, tmp_path / "another")
    assert not any("README.md" in line for line in said)


def test_exports_in_any_order_and_saving_again_give_the_same_folder(run, tmp_path, monkeypatch):
    """The graph is a stand-in: making one takes seconds."""

    def save_onnx(folder: Path, *model: object) -> None:
        [name] = FORMS["onnx"].files
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("a graph")

    monkeypatch.setattr("bertfast.hub.onnx.save_onnx", save_onnx)
    onnx, both = tmp_path / "onnx", tmp_path / "both"
    for folder, forms in ((onnx, ["onnx", "sentence-transformers"]), (both, ["sentence-transformers", "onnx"])):
        run.save(folder)
        for form in forms:
            export(folder, form)
    assert header(both)["tags"] == ["bert", "bertfast", "sentence-transformers", "onnx"]
    assert contents(onnx) == contents(both)
    before = contents(both)
    run.save(both)
    assert contents(both) == before
    for name in FORMS["onnx"].files:
        (both / name).unlink()
    run.save(both)
    assert header(both)["tags"] == ["bert", "bertfast", "sentence-transformers"]
    assert "onnx" not in (both / "README.md").read_text()


def test_opening_the_folder_changes_no_file(run, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    run.save(tmp_path / "out")
    export(tmp_path / "out", "sentence-transformers")
    before = contents(tmp_path / "out")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert theirs.encode(["a crane"]).shape == (1, 32)
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_parameters_of_a_padded_vocabulary(run, tmp_path):
    """A vocabulary of 128 tokens needs no padding, one of 129 does."""
    for vocab_size in (128, 129):
        model = Bert(BertConfig(vocab_size=vocab_size, hidden_size=32))
        card = card_of(dataclasses.replace(run, model=model), tmp_path / str(vocab_size))
        theirs = transformers.BertForPreTraining.from_pretrained(tmp_path / str(vocab_size))
        assert row(card, "parameters") == f"{theirs.num_parameters():,}"
