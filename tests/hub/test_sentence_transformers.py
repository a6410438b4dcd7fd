"""A folder's modules of sentence-transformers determine the defaults of `embed`."""

import json
import logging
import shutil
import warnings

import numpy as np
import pytest
import torch
from support.saved_model import MAX_LEN
from support.trained_tokenizer import train_wordpiece

from bertfast import encode
from bertfast.config import CorpusConfig
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder

TEXTS = ["a crane is flying", "", "He just left", "crane is flying " * 5, "driver " * 60]

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def sentence_transformers():
    return pytest.importorskip("sentence_transformers")


@pytest.fixture
def folder(saved_model, tmp_path):
    return shutil.copytree(saved_model, tmp_path / "model")


def write(folder, pooling, normalize=False, transformer=None, more=()):
    """The modules as versions 2 to 5 of sentence-transformers write them."""
    names = ["Transformer", "Pooling", *more, *["Normalize"] * normalize]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    config = {f"pooling_mode_{flag}": flag in pooling for flag in flags}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 128, **config}))
    settings = {"max_seq_length": None, "do_lower_case": False} if transformer is None else transformer
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))


def embedded(folder, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about truncated texts
        return Encoder.load(folder).embed(TEXTS, **settings)


FLAGS = {"mean": "mean_tokens", "max": "max_tokens", "cls": "cls_token"}


# Every pair of settings.
@pytest.mark.parametrize(
    ("pooling", "normalize", "max_len", "version"),
    [
        ("mean", False, None, "2 to 5"),
        ("mean", True, None, "2 to 5"),
        ("mean", True, 9, "installed"),
        ("max", False, 9, "2 to 5"),
        ("max", True, None, "installed"),
        ("cls", False, None, "installed"),
        ("cls", True, 9, "2 to 5"),
        ("cls", False, 9, "installed"),
    ],
)
def test_embed_equals_encode(sentence_transformers, folder, tmp_path, pooling, normalize, max_len, version):
    write(folder, [FLAGS[pooling]], normalize, {"max_seq_length": max_len, "do_lower_case": False})
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    if version == "installed":
        folder = tmp_path / "theirs"
        theirs.save(str(folder))
    expected = theirs.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(embedded(folder), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"pooling": "mean"}, {"normalize": False}, {"max_len": MAX_LEN}, {"max_len": 5, "long": "window"}]
)
def test_a_given_setting_overrides_the_modules(saved_model, folder, settings):
    write(folder, ["cls_token"], True, {"max_seq_length": 9})
    modules = {"pooling": "cls", "normalize": True, "max_len": 9}
    assert torch.equal(embedded(folder, **settings), embedded(saved_model, **modules | settings))


def test_settings_from_the_folder_are_logged(saved_model, folder, caplog):
    caplog.set_level(logging.INFO)
    Encoder.load(saved_model)
    assert not caplog.messages
    write(folder, ["max_tokens"], True, {"max_seq_length": 9})
    Encoder.load(folder)
    line = f"defaults for vectors, from {folder / 'modules.json'}: pooling max, normalize True, max_len 9"
    assert caplog.messages == [line]


def test_the_command_uses_them_too(folder, tmp_path, capsys):
    write(folder, ["cls_token"], True, {"max_seq_length": 9})
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    command = ["--model", str(folder), "--input", str(tmp_path / "a.txt"), "--out", str(tmp_path / "v.npy")]
    for options, settings in ([], {}), (["--pooling", "max", "--no-normalize", "--max-len", "7"], None):
        settings = {"pooling": "max", "normalize": False, "max_len": 7} if settings is None else settings
        assert encode.main([*command, *options]) == 0
        assert np.array_equal(np.load(tmp_path / "v.npy"), embedded(folder, **settings).numpy())
    assert "were truncated to 7 tokens (max_len)" in capsys.readouterr().err


OTHERS = {
    "weighted mean": ({"pooling": ["weightedmean_tokens"]}, r"1_Pooling/config.json has the pooling .*weightedmean"),
    "two poolings": ({"pooling": ["mean_tokens", "max_tokens"]}, r"the pooling pooling_mode_mean_tokens \+ pooling_"),
    "a Dense": ({"pooling": ["cls_token"], "more": ["Dense"]}, r"the modules Transformer, Pooling, Dense, which"),
    "a length": ({"pooling": ["cls_token"], "transformer": {"max_seq_length": "9"}}, "has max_seq_length '9', which"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_unsupported_modules_are_refused(saved_model, folder, tmp_path, capsys, kind):
    modules, message = OTHERS[kind]
    write(folder, **modules)
    encoder = Encoder.load(folder)
    assert encoder("a crane").shape == (1, 4, 128)  # no pooling
    with pytest.raises(InputError, match=f"^{folder}.*{message}.*: to do without .* give the pooling"):
        encoder.embed(["a crane"], normalize=True)
    assert torch.equal(embedded(folder, pooling="mean"), embedded(saved_model, pooling="mean"))
    assert encode.main(["--model", str(folder), "a crane", "--out", str(tmp_path / "v.npy")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder}")
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"7", b'[{"type": 5}]', b'{"pooling_mode": 7, "max_seq_length": "7"}']
)
def test_an_invalid_file_is_named(folder, name, content):
    write(folder, ["mean_tokens"])
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^{folder / name} "):
        Encoder.load(folder).embed(["a crane"])


def test_a_missing_file_of_pooling_is_named(folder):
    write(folder, ["mean_tokens"])
    path = folder / "1_Pooling" / "config.json"
    path.unlink()
    with pytest.raises(InputError, match=f"^{path} "):
        Encoder.load(folder).embed(["a crane"])


def test_modules_that_are_an_object(folder):
    (folder / "modules.json").write_text("{}")
    with pytest.raises(InputError, match=f"^{folder / 'modules.json'} is not a list of modules"):
        Encoder.load(folder).embed(TEXTS)


def test_texts_that_are_changed_first_are_refused(folder):
    write(folder, ["mean_tokens"], transformer={"max_seq_length": 9, "do_lower_case": True})
    Encoder.load(folder).embed(["a crane"])  # its tokenizer does it, too
    prompts = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    Encoder.load(folder).embed(["a crane"])
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**prompts, "default_prompt_name": "query"}))
    with pytest.raises(InputError, match="puts 'query: ' before each text"):
        Encoder.load(folder).embed(["a crane"])
    (folder / "config_sentence_transformers.json").unlink()
    train_wordpiece(TEXTS, CorpusConfig(min_freq=1, lowercase=False)).save(folder, MAX_LEN)
    with pytest.raises(InputError, match="lower-cases texts, and the folder's tokenizer does not"):
        Encoder.load(folder).embed(["a crane"])
