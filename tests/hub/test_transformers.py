"""transformers reads a run's folder, and bertfast reads folders of transformers."""

import dataclasses
import importlib
import json
import logging
import shlex
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.load import load_corpus
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.hub.state_dict import MASKED_LM_HEAD, NEXT_SENTENCE_HEAD, POOLER
from bertfast.hub.transformers import conversion_command, load_config, load_pretrained, save_model
from bertfast.inference.encoder import Encoder
from bertfast.model import Bert
from bertfast.training.launch import train

TEXTS = ["a crane is flying", "The <unk> quick , brown fox @-@ 1 @.@ 5 jumps ."]


@pytest.fixture(scope="module", params=["word", "wordpiece"])
def run_folder(request, tmp_path_factory):
    corpus = load_corpus(tokenizer=request.param)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = Bert(BertConfig(vocab_size=corpus.vocab_size, **sizes))
    run = train(model, corpus, TrainConfig(steps=2, batch_size=8, max_len=32, device="cpu", precision="fp32"))
    folder = tmp_path_factory.mktemp(request.param)
    run.save(folder)
    return folder


@pytest.mark.parametrize("kind", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining"])
def test_transformers_finds_every_weight(run_folder, kind):
    model, info = getattr(transformers, kind).from_pretrained(run_folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    # A model without heads leaves theirs over; nothing else may be left over.
    left_over = {key.split(".")[0] for key in info["unexpected_keys"]}
    assert left_over <= ({"cls"} if kind == "AutoModel" else {"cls", "bert"} if "Masked" in kind else set())
    assert type(model).__module__.startswith("transformers.models.bert")


def test_the_digest_is_of_the_weights_from_the_folder(run_folder, tmp_path):
    """It depends neither on the folder's path nor on heads that start from random numbers."""
    whole = load_pretrained(run_folder)
    assert set(whole.given()) == {name for name, _ in whole.model.named_parameters()}
    assert load_pretrained(run_folder).digest() == whole.digest()
    transformers.AutoModel.from_pretrained(run_folder).save_pretrained(tmp_path)
    whole.tokenizer.save(tmp_path, 32)
    one, other = load_pretrained(tmp_path), load_pretrained(tmp_path)
    assert not torch.equal(one.model.masked_lm_head.transform.weight, other.model.masked_lm_head.transform.weight)
    assert one.digest() == other.digest() != whole.digest()
    assert {name.split(".")[0] for name in one.given()} == {"embeddings", "layers", "pooler"}
    with torch.no_grad():
        other.model.layers[1].output.bias[-1] += 1e-6
    assert one.digest() != other.digest()


def test_encodings_equal_transformers(run_folder):
    encoder = Encoder.load(run_folder)
    model = transformers.AutoModel.from_pretrained(run_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run_folder)
    for text, pair in [(TEXTS[0], None), (TEXTS[1], None), (TEXTS[0], TEXTS[1])]:
        with torch.no_grad():
            expected = model(**tokenizer(text, pair, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(encoder(text, pair), expected, rtol=1e-5, atol=1e-5)


def test_logits_equal_transformers(run_folder):
    encoder = Encoder.load(run_folder)
    theirs = transformers.AutoModelForPreTraining.from_pretrained(run_folder).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(run_folder)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs)
        hidden_states = encoder(TEXTS[0])[0]
        mlm = encoder.model.masked_lm_logits(hidden_states)
        nsp = encoder.model.next_sentence_logits(encoder.model.pooled(hidden_states[:1]))
    torch.testing.assert_close(mlm, expected.prediction_logits[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nsp, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)


def test_fill_mask_pipeline(run_folder):
    pipeline = transformers.pipeline("fill-mask", model=str(run_folder), tokenizer=str(run_folder))
    assert len(pipeline("the crane is [MASK] .")) == 5


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "crane",
    "is",
    "fly",
    "##ing",
    "É",
    "é",
    "e",
    "中",
    "中国",
]
SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
KINDS = {
    "BertModel": {MASKED_LM_HEAD, NEXT_SENTENCE_HEAD},
    "BertForMaskedLM": {POOLER, NEXT_SENTENCE_HEAD},
    "BertForPreTraining": set(),
}


def save_theirs(folder, kind="BertForPreTraining", dtype=torch.float32, shard_size="5GB", **settings):
    """Saves a model of transformers with random weights and biases, and a vocab.txt."""
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**SIZES, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir(exist_ok=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    return model.float().eval()


def rewrite(folder, change):
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", {"format": "pt"})


def early_names(state):
    """The published bert-base-uncased calls LayerNorm's weight gamma and its bias beta."""
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }


def names_of_transformers_4(state):
    """Adds buffers, and the decoder that is tied to the word embeddings."""
    prefix = "bert." if "bert.pooler.dense.bias" in state else ""
    state[f"{prefix}embeddings.position_ids"] = torch.arange(24).unsqueeze(0)
    if prefix:
        state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
        state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    return state


def assert_equal_outputs(folder, theirs):
    """bertfast's model from `folder` has the hidden states of transformers' model, and the outputs of its heads."""
    pretrained = load_pretrained(folder)
    encoder = Encoder(pretrained.model, pretrained.tokenizer)
    inputs = transformers.BertTokenizer.from_pretrained(folder)("the crane is [MASK]", "flying", return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True)
        states = encoder("the crane is [MASK]", "flying")[0]
        pooled = encoder.model.pooled(states[:1])
        ours = {
            "prediction_logits": encoder.model.masked_lm_logits(states),
            "logits": encoder.model.masked_lm_logits(states),
            "pooler_output": pooled,
            "seq_relationship_logits": encoder.model.next_sentence_logits(pooled),
        }
    torch.testing.assert_close(states, expected.hidden_states[-1][0], rtol=1e-5, atol=1e-5)
    for name in ours.keys() & expected.keys():
        if name != "pooler_output" or POOLER not in pretrained.fresh:
            torch.testing.assert_close(ours[name], expected[name].reshape(ours[name].shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [None, early_names, names_of_transformers_4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers(tmp_path, kind, change):
    theirs = save_theirs(tmp_path, kind)
    if change:
        rewrite(tmp_path, change)
    assert_equal_outputs(tmp_path, theirs)
    assert load_pretrained(tmp_path).fresh == dict.fromkeys(KINDS[kind], "has none")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_shards(tmp_path, dtype):
    theirs = save_theirs(tmp_path, dtype=dtype, shard_size="10KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert_equal_outputs(tmp_path, theirs)
    shards[1].unlink()
    with pytest.raises(InputError, match=f"{shards[1].name} is missing: the folder holds only a part"):
        load_pretrained(tmp_path)


def test_pickle_is_never_opened_but_can_be_converted(tmp_path, monkeypatch):
    theirs = save_theirs(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")  # the decoder shares the embeddings' memory
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds its weights as pickle") as refused:
        load_pretrained(tmp_path)
    assert str(refused.value).endswith(conversion_command(tmp_path))
    python, flag, code, *arguments = shlex.split(conversion_command(tmp_path))
    assert (python, flag) == ("python", "-c")
    monkeypatch.setattr(sys, "argv", [flag, *arguments])
    exec(code, {})
    assert_equal_outputs(tmp_path, theirs)


def test_weights_survive_a_round_trip(tmp_path):
    theirs = save_theirs(tmp_path)
    save_model(load_pretrained(tmp_path).model, tmp_path)
    again = transformers.BertForPreTraining.from_pretrained(tmp_path)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_an_untied_decoder(tmp_path):
    """transformers ties the decoder by config.json, but not if the file holds another decoder."""
    save_theirs(tmp_path, "BertForMaskedLM", tie_word_embeddings=False)
    start = load_pretrained(tmp_path)
    assert start.fresh[MASKED_LM_HEAD] == "has one whose decoder is not its word embeddings, as bertfast's is"
    assert not start.model.masked_lm_head.bias.any()
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": True}))
    assert MASKED_LM_HEAD in load_pretrained(tmp_path).fresh
    with pytest.raises(InputError, match=r"the masked-LM head is needed, and .* has one whose decoder is not"):
        load_pretrained(tmp_path, MASKED_LM_HEAD)
    # An untied decoder that equals the word embeddings can be loaded.
    theirs = save_theirs(tmp_path)
    rewrite(tmp_path, names_of_transformers_4)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    assert_equal_outputs(tmp_path, theirs)


def test_fresh_heads_and_unused_weights_are_logged(tmp_path):
    save_theirs(tmp_path, "BertForSequenceClassification")
    assert load_pretrained(tmp_path).notes() == [
        f"the masked-LM head and the next-sentence head start fresh: {tmp_path} has none",
        f"not used in pretraining: classifier of {tmp_path}",
    ]
    save_theirs(tmp_path)
    assert load_pretrained(tmp_path).notes() == []


@pytest.mark.parametrize(
    "settings", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_a_vocab_txt_with_its_settings(tmp_path, settings):
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    text = "The crane É é e 中国 is flying"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert Tokenizer.load(tmp_path).encode(text)[0] == theirs(text)["input_ids"]


def damaged(name, tensor):
    return lambda state: {**state, name: tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {n: t for n, t in state.items() if "layer.1.attention.self.key.bias" not in n}, "holds no bert"),
        (
            damaged("bert.pooler.dense.bias", torch.zeros(31)),
            r"pooler.dense.bias has the shape \(31,\), the model needs",
        ),
        (damaged("bert.pooler.dense.bias", torch.zeros(32, dtype=torch.int8)), "int8: quantized weights can't"),
        (
            damaged("bert.encoder.layer.2.output.dense.bias", torch.zeros(32)),
            "layer.2.output.dense.bias, which the model",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    save_theirs(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(InputError, match=message):
        load_pretrained(tmp_path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    save_theirs(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(InputError, match="a BertJapaneseTokenizer splits text in a way of its own"):
        load_pretrained(tmp_path)


def pretrain_from(folder, tmp_path, *arguments):
    (tmp_path / "text.txt").write_text(
        "the crane is flying .\nthe crane is fly .\n\nis the crane flying ?\nthe crane .\n"
    )
    common = ["--corpus", tmp_path / "text.txt", "--text-form", "lines", "--device", "cpu", "--precision", "fp32"]
    settings = ["--steps", 1, "--batch-size", 4, "--max-len", 16, "--lr", 1e-6, "--out", tmp_path / "out"]
    command = [*common, *settings, "--init", folder, *arguments]
    return importlib.import_module("bertfast.pretrain").main([str(part) for part in command])


def test_init_starts_from_a_bert_without_heads(tmp_path, cache, capfd):
    theirs = save_theirs(tmp_path / "theirs", "BertModel")
    assert pretrain_from(tmp_path / "theirs", tmp_path) == 0
    said = capfd.readouterr().err
    assert f"the masked-LM head and the next-sentence head start fresh: {tmp_path / 'theirs'} has none\n" in said
    for kind in KINDS:
        again, info = getattr(transformers, kind).from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not info["missing_keys"]
        encoder = again if kind == "BertModel" else again.bert
        weight = encoder.encoder.layer[1].output.dense.weight
        expected = theirs.encoder.layer[1].output.dense.weight
        assert not torch.equal(weight, expected)  # it was trained
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-4)  # from their weights
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("flying") == ["fly", "##ing"]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda words: [word for word in words if word != "[MASK]"], [], "vocab.txt: the tokenizer has no [MASK]"),
        (lambda words: [*words, *map(str, range(99))], [], "its tokenizer has 114 tokens, its model only 99"),
        (lambda words: words, ["--max-len", 32], "--max-len 32 exceeds the model's 24 positions"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_before_anything_is_built(
    tmp_path, cache, capfd, change, arguments, message
):
    save_theirs(tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.txt").write_text("".join(f"{word}\n" for word in change(WORDS)), encoding="utf-8")
    assert pretrain_from(tmp_path / "theirs", tmp_path, *arguments) == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert message in said[-1]
    assert not cache.exists()
    assert not (tmp_path / "out").exists()


def test_settings_that_a_config_omits_are_as_in_transformers(tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 100, "hidden_dropout_prob": 0}')
    ours, theirs = load_config(tmp_path)[0], transformers.BertConfig(vocab_size=100, hidden_dropout_prob=0)
    for field in dataclasses.fields(ours):
        assert getattr(ours, field.name) == getattr(theirs, field.name), field.name


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Hides a warning of transformers 5 about heads that AutoModel ignores; the tests above check which they are."""
    caplog.set_level(logging.ERROR, logger="transformers")
