"""Exports, opened by the libraries that they are for: sentence-transformers and onnxruntime."""

import importlib
import importlib.util
import logging
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from support.saved_model import MAX_LEN, save

from bertfast import export as module
from bertfast.config import EncodeConfig
from bertfast.errors import InputError
from bertfast.hub.export import export
from bertfast.hub.transformers import load_pretrained
from bertfast.inference.encoder import Encoder

TEXTS = ["a crane is flying", "", "He just left [SEP] unknown", "crane " * 50, "driver"]


@pytest.fixture
def folder(saved_model, tmp_path):
    return shutil.copytree(saved_model, tmp_path / "model")


# ---- sentence-transformers


@pytest.fixture(scope="module")
def sentence_transformers():
    return pytest.importorskip("sentence_transformers")


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", False), ("max", False), ("cls", True)])
def test_sentence_transformers_gives_the_same_vectors(sentence_transformers, folder, pooling, normalize):
    export(folder, "sentence-transformers", EncodeConfig(pooling=pooling, normalize=normalize))
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert [type(part).__name__ for part in theirs] == ["Transformer", "Pooling", *["Normalize"] * normalize]
    assert theirs.max_seq_length == MAX_LEN
    vectors = Encoder.load(folder).embed(TEXTS[:3])
    torch.testing.assert_close(theirs.encode(TEXTS[:3], convert_to_tensor=True), vectors, rtol=1e-5, atol=1e-5)
    with pytest.warns(UserWarning, match="1 of 1 texts were truncated"):  # theirs is truncated without a warning
        long = Encoder.load(folder).embed([TEXTS[3]])
    torch.testing.assert_close(theirs.encode([TEXTS[3]], convert_to_tensor=True), long, rtol=1e-5, atol=1e-5)


def test_a_word_level_tokenizer(sentence_transformers, tmp_path):
    save(tmp_path, "word")
    export(tmp_path, "sentence-transformers")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    vectors = Encoder.load(tmp_path).embed(TEXTS[:3])
    torch.testing.assert_close(theirs.encode(TEXTS[:3], convert_to_tensor=True), vectors, rtol=1e-5, atol=1e-5)


def test_a_folder_that_sentence_transformers_saved_can_be_loaded(sentence_transformers, folder, tmp_path):
    export(folder, "sentence-transformers")
    sentence_transformers.SentenceTransformer(str(folder), device="cpu").save(str(tmp_path / "theirs"))
    start = load_pretrained(tmp_path / "theirs")
    assert set(start.fresh) == {"masked-LM head", "next-sentence head"}
    vectors = Encoder(start.model, start.tokenizer).embed(TEXTS[:3])
    torch.testing.assert_close(vectors, Encoder.load(folder).embed(TEXTS[:3]), rtol=0, atol=0)


# ---- ONNX


def padded(lengths, vocab_size):
    """Padded random ids, with a second segment in every sequence of more than one token."""
    generator = torch.Generator().manual_seed(len(lengths))
    shape = (len(lengths), max(lengths))
    place = torch.arange(shape[1]).expand(shape)
    mask = place < torch.tensor(lengths)[:, None]
    return {
        "input_ids": torch.randint(5, vocab_size, shape, generator=generator) * mask,
        "attention_mask": mask.long(),
        "token_type_ids": ((place >= torch.tensor(lengths)[:, None] // 2) * mask).long(),
    }


@pytest.fixture(scope="module")
def exported(saved_model, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    folder = shutil.copytree(saved_model, tmp_path_factory.mktemp("onnx") / "model")
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(folder, "onnx")
    assert logging.getLogger("torch.onnx").level == level
    return folder


def session(folder):
    import onnxruntime

    return onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("lengths", [[1], [7], [MAX_LEN], [2, 13, 5], [MAX_LEN, 1, 33]])
def test_onnxruntime_equals_transformers(exported, lengths):
    theirs = transformers.BertModel.from_pretrained(exported).eval()
    inputs = padded(lengths, theirs.config.vocab_size)
    names = ["last_hidden_state", "pooler_output"]
    states, pooled = map(torch.tensor, session(exported).run(names, {k: v.numpy() for k, v in inputs.items()}))
    with torch.no_grad():
        expected = theirs(**inputs)
    seen = inputs["attention_mask"].bool()
    torch.testing.assert_close(states[seen], expected.last_hidden_state[seen], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=1e-4, atol=1e-4)


def test_onnxruntime_equals_the_encoder(exported):
    encoder = Encoder.load(exported)
    ids, types, _ = encoder.tokenizer.encode("a crane driver came", "he just left")
    inputs = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [types]}
    [states] = session(exported).run(["last_hidden_state"], {k: torch.tensor(v).numpy() for k, v in inputs.items()})
    ours = encoder("a crane driver came", "he just left")
    torch.testing.assert_close(torch.tensor(states), ours, rtol=1e-4, atol=1e-4)


def test_a_model_without_a_pooler_has_no_pooler_output(folder):
    pytest.importorskip("onnxruntime")
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    export(folder, "onnx")
    assert [each.name for each in session(folder).get_outputs()] == ["last_hidden_state"]


def test_the_graph_names_no_file_of_this_machine(exported):
    assert b".py" not in (exported / "onnx" / "model.onnx").read_bytes()


# ---- the command


def test_help_and_documentation_list_the_forms(capsys):
    with pytest.raises(SystemExit):
        module.main(["--help"])
    shown = "".join(capsys.readouterr().out.split())
    page = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")
    for name, form in module.FORMS.items():
        assert f"{name}:{''.join(form.purpose.split())}" in shown
        assert f"\n| `{name}` | {', '.join(f'`{file}`' for file in form.files)} |" in page


@pytest.mark.parametrize("form", module.FORMS)
def test_the_command_adds_files_and_changes_no_others(folder, form, capfd):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    command = ["--model", str(folder), "--to", form]
    assert module.main(command) == 0
    files = module.FORMS[form].files
    assert capfd.readouterr().err.splitlines()[-1] == f"added to {folder}: {', '.join(files)}"
    assert all(path.read_bytes() == content for path, content in before.items())
    added = {path for path in folder.rglob("*") if path.is_file()} - set(before)
    assert added == {folder / name for name in files}
    # A second time it refuses: the files might be the user's own.
    assert module.main(command) == 2
    assert f"{folder / files[0]} already exists" in capfd.readouterr().err
    transformers.AutoModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere", "--to", "onnx"], "error: nowhere: no such folder; give one that"),
        (["--model", ".", "--to", "sentence-transformers"], "error: . holds no config.json: give a folder that"),
        (["--model", ".", "--to", "gguf"], "argument --to: invalid choice: 'gguf'"),
        (["--model", ".", "--to", "onnx", "--pooling", "cls"], "leave out --pooling"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert module.main(arguments) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(folder, monkeypatch, capfd):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert module.main(["--model", str(folder), "--to", "onnx"]) == 2
    assert capfd.readouterr().err == "error: an export to onnx needs more packages: pip install onnx onnxscript\n"


def test_a_run_names_missing_packages_before_it_reads_text(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    pretrain = importlib.import_module("bertfast.pretrain")
    assert pretrain.main(["--corpus", str(tmp_path / "nowhere"), "--export", "onnx"]) == 2
    assert capfd.readouterr().err == "error: an export to onnx needs more packages: pip install onnx onnxscript\n"


def test_a_model_larger_than_the_format_is_refused(folder, monkeypatch):
    monkeypatch.setattr("bertfast.hub.onnx._MOST_BYTES", 10_000)
    with pytest.raises(InputError, match=r"the weights take .* GB, and an ONNX file holds 2"):
        export(folder, "onnx")
    assert not (folder / "onnx").exists()
