"""A run's folder in transformers, without remote code."""

import json
import logging

import pytest
import torch
import transformers
from notebook import wikitext_folder
from safetensors.torch import save_file

from bertfast.config import BertConfig, TrainConfig
from bertfast.corpus import load_corpus
from bertfast.encode import Encoder
from bertfast.errors import InputError
from bertfast.huggingface import export_state_dict, load_config, load_model, save_model
from bertfast.launch import pretrain
from bertfast.model import Bert

TEXTS = ["a crane is flying", "The <unk> quick , brown fox @-@ 1 @.@ 5 jumps ."]


@pytest.fixture(scope="module", params=["word", "wordpiece"])
def run_folder(request, tmp_path_factory):
    corpus = load_corpus(wikitext_folder(), tokenizer=request.param)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = Bert(BertConfig(vocab_size=corpus.vocab_size, **sizes))
    run = pretrain(model, corpus, TrainConfig(steps=2, batch_size=8, max_len=32, device="cpu", precision="fp32"))
    folder = tmp_path_factory.mktemp(request.param)
    run.save(folder)
    return folder


@pytest.mark.parametrize("kind", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining"])
def test_transformers_finds_every_weight(run_folder, kind):
    model, info = getattr(transformers, kind).from_pretrained(run_folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    # A model without the heads has no use for them; nothing else may be left over.
    left_over = {key.split(".")[0] for key in info["unexpected_keys"]}
    assert left_over <= ({"cls"} if kind == "AutoModel" else {"cls", "bert"} if "Masked" in kind else set())
    assert type(model).__module__.startswith("transformers.models.bert")


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


def test_a_model_that_transformers_saved(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    theirs = transformers.BertForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config.num_attention_heads == 4
    save_model(ours, tmp_path)
    again = transformers.BertForPreTraining.from_pretrained(tmp_path)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_first_checkpoints_names(tmp_path):
    """bert-base-uncased, as published, calls LayerNorm's weight gamma and its bias beta."""
    model = Bert(BertConfig(vocab_size=30, hidden_size=16, num_attention_heads=2, intermediate_size=16))
    state = export_state_dict(model)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    assert renamed.keys() != state.keys()
    save_model(model, tmp_path)
    save_file(renamed, tmp_path / "model.safetensors")
    again = export_state_dict(load_model(tmp_path))
    assert all(torch.equal(state[name], again[name]) for name in state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'; only 'absolute'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False; only True"),
        ({"hidden_size": "128"}, "hidden_size '128', which should be a number"),
    ],
)
def test_models_that_would_load_wrongly_are_refused(tmp_path, settings, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **settings}))
    with pytest.raises(InputError, match=message):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no settings"):
        load_config(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_config(tmp_path)
    transformers.RobertaConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="type 'roberta'; only 'bert'"):
        load_config(tmp_path)
    transformers.BertConfig(hidden_act="relu").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="activation 'relu'; only 'gelu'"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="can't be read"):
        load_config(tmp_path)


def test_a_folder_without_heads_is_refused(tmp_path):
    sizes = {
        "vocab_size": 9,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"holds no .*embeddings"):
        load_model(tmp_path)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """transformers 5 reports heads that AutoModel leaves aside as a warning; the tests above say which they may be."""
    caplog.set_level(logging.ERROR, logger="transformers")
