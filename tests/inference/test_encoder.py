"""The encoder, for single texts and in bulk, compared with transformers."""

import copy
import itertools
import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from support.saved_model import MAX_LEN, WORDS, save
from support.torch_threads import torch_threads
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast.config import EncodeConfig
from bertfast.errors import InputError
from bertfast.inference import encoder as module
from bertfast.inference.encoder import Encoder
from bertfast.model import Bert


@pytest.fixture(scope="module")
def encoder(saved_model):
    return Encoder.load(saved_model)


@pytest.fixture(scope="module")
def theirs(saved_model):
    """text -> its hidden states by transformers in float64: (tokens, hidden) for each layer."""
    model = transformers.AutoModel.from_pretrained(saved_model).double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved_model)

    @torch.no_grad()
    def hidden_states(text, pair=None):
        inputs = tokenizer(text, pair, return_tensors="pt", truncation=True)
        return [states[0].float() for states in model(**inputs, output_hidden_states=True).hidden_states]

    return hidden_states


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randint(len(WORDS), (n,), generator=generator).tolist() for n in (3, 30, 0, 1, 17, 17, 2) * 5]
    return [" ".join(WORDS[i] for i in pick) for pick in picks]


def test_the_notebooks_shapes(encoder):
    encoded = encoder("a crane is flying")
    assert encoded.shape == (1, 6, 128)
    assert encoded[:, 0, :].shape == (1, 128)
    assert encoder("a crane driver came", "he just left").shape == (1, 10, 128)
    assert encoder.tokens("a crane", "he left") == ["[CLS]", "a", "crane", "[SEP]", "he", "left", "[SEP]"]


def test_the_same_word_differs_by_context(encoder):
    """As the notebook remarks: a crane is a bird or a machine."""
    bird, machine = encoder("a crane is flying")[0, 2], encoder("a crane driver came", "he just left")[0, 2]
    assert not torch.allclose(bird, machine, atol=1e-3)


@pytest.mark.parametrize("layer", range(-3, 3))
def test_hidden_states_of_any_layer(encoder, theirs, layer):
    expected = theirs("a crane driver came", "he just left")[layer]
    torch.testing.assert_close(encoder("a crane driver came", "he just left", layer)[0], expected, rtol=1e-5, atol=1e-5)


def test_offsets_are_characters(encoder):
    text, pair = "Ä crane — ís  flying", "he left"
    pieces = [text[begin:end] for begin, end in encoder.offsets(text)]
    assert pieces == ["", "Ä", "crane", "—", "ís", "flying", ""]
    both = encoder.offsets(text, pair)
    assert len(both) == len(encoder.tokens(text, pair))
    assert [pair[begin:end] for begin, end in both[7:]] == ["he", "left", ""]


POOLED = {"mean": lambda s: s.mean(0), "max": lambda s: s.amax(0), "cls": lambda s: s[0]}


@pytest.mark.parametrize("layer", [-1, 0, 1])
@pytest.mark.parametrize("pooling", POOLED)
def test_embed_equals_transformers_in_order(encoder, theirs, texts, pooling, layer, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_TOKENS", 100)  # several batches
    vectors = encoder.embed(texts, pooling=pooling, layer=layer)
    expected = torch.stack([POOLED[pooling](theirs(text)[layer]) for text in texts])
    # Weights ten times as large as BERT's increase rounding errors: transformers in float32 is off by 7e-6.
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=2e-5)
    assert encoder.embed([]).shape == (0, 128)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pooling", POOLED)
def test_a_vector_does_not_depend_on_the_other_texts(encoder, texts, pooling, precision, threads):
    with torch_threads(threads):
        together = encoder.embed(texts, pooling=pooling, precision=precision)
        for some in ([0], [1], [2, 3, 4, 5, 6], list(range(len(texts)))[::-1]):
            vectors = encoder.embed([texts[i] for i in some], pooling=pooling, precision=precision)
            assert torch.equal(vectors, together[some])
        assert torch.get_num_threads() == threads


def test_weights_that_change_give_other_vectors_in_bf16(encoder):
    """The encoder keeps them converted."""
    changed = Encoder(copy.deepcopy(encoder.model), encoder.tokenizer)
    before = changed.embed("a crane", precision="bf16")
    assert torch.equal(before, encoder.embed("a crane", precision="bf16"))
    with torch.no_grad():
        changed.model.layers[0].query.weight.mul_(2)
    after = changed.embed("a crane", precision="bf16")
    assert not torch.equal(after, before)
    assert torch.equal(
        after, Encoder(copy.deepcopy(changed.model), encoder.tokenizer).embed("a crane", precision="bf16")
    )


@pytest.fixture
def elsewhere(encoder):
    """The encoder with weights on another device than the CPU: fake tensors without data, whose devices must match.

    The device is "meta", which every build of torch has.
    """
    with FakeTensorMode():
        model = Bert(encoder.model.config)
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(torch.empty(weight.shape, device="meta")))
        yield Encoder(model, encoder.tokenizer)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("layer", [-1, 0])
def test_vectors_from_another_device_are_on_the_cpu(elsewhere, pooling, precision, layer):
    """On another device, a batch has many more tokens than on a core."""
    counts = []
    config = EncodeConfig(pooling=pooling, precision=precision, layer=layer)
    vectors, _ = elsewhere.embed_texts(["crane " * 38] * 100, config, counts.append)
    assert (vectors.device.type, vectors.shape) == ("cpu", (100, 128))
    assert counts == [100]
    assert elsewhere("a crane").device.type == "cpu"


def test_embed_composes_and_offsets_fit_the_text(tmp_path):
    """A decomposed text has the vector of the composed one, and the encoding of its own characters."""
    encoder = Encoder.load(save(tmp_path, "word", words=["caf\u00e9", "a"]))
    composed, decomposed = "a caf\u00e9", "a cafe\u0301"
    assert torch.equal(encoder.embed(decomposed), encoder.embed(composed))
    assert encoder.tokens(composed) == ["[CLS]", "a", "caf\u00e9", "[SEP]"]
    assert encoder.tokens(decomposed) == ["[CLS]", "a", "[UNK]", "[SEP]"]
    assert decomposed[slice(*encoder.offsets(decomposed)[2])] == "cafe\u0301"


def test_a_long_text_is_truncated_with_a_warning(encoder, theirs):
    long = " ".join(itertools.islice(itertools.cycle(WORDS), 100))
    with pytest.warns(UserWarning, match="1 of 2 texts were truncated to the 40 tokens"):
        vectors = encoder.embed([long, "a crane"])
    torch.testing.assert_close(vectors[0], theirs(long)[-1].mean(0), rtol=1e-5, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.embed(["crane " * (MAX_LEN - 2)])  # fits exactly
    with pytest.raises(
        InputError,
        match=r"the text '\w+ .* \.\.\.' has 102 tokens, more than the 40 tokens that the model takes: cut it",
    ):
        encoder.embed(["a crane", long], long="error")


@pytest.mark.parametrize("long", ["truncate", "window", "error"])
def test_max_len_limits_the_length(encoder, long):
    words = list(itertools.islice(itertools.cycle(WORDS), 30))
    if long == "error":
        with pytest.raises(InputError, match=r"the text '.* \.\.\.' has 32 tokens, more than 12 tokens \(max_len\)"):
            encoder.embed([" ".join(words)], max_len=12, long=long)
        return
    pieces = [encoder(" ".join(words[start : start + 10]))[0] for start in (0, 10, 20)]
    expected = torch.cat(pieces if long == "window" else pieces[:1]).mean(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors = encoder.embed([" ".join(words)], max_len=12, long=long)
    assert len(caught) == (long == "truncate")
    torch.testing.assert_close(vectors[0], expected, rtol=1e-5, atol=1e-5)
    full = encoder.embed([" ".join(words)])
    assert torch.equal(encoder.embed([" ".join(words)], max_len=1000), full)


@pytest.mark.parametrize("overlap", [0, 10])
@pytest.mark.parametrize("pooling", POOLED)
def test_windows_are_pooled_by_their_tokens(encoder, texts, pooling, overlap):
    room = MAX_LEN - 2
    words = list(itertools.islice(itertools.cycle(WORDS), 100))
    starts = range(0, len(words) - overlap, room - overlap)
    states = [encoder(" ".join(words[start : start + room]))[0] for start in starts]
    assert len(states[-1]) < MAX_LEN
    if pooling == "cls":
        expected = sum(len(s) * s[0] for s in states) / sum(map(len, states))
    else:
        expected = POOLED[pooling](torch.cat(states))
    long = " ".join(words)
    vectors = encoder.embed([*texts, long, "a crane"], pooling=pooling, long="window", overlap=overlap)
    torch.testing.assert_close(vectors[-2], expected, rtol=1e-5, atol=1e-5)
    others = encoder.embed([*texts, "a crane"], pooling=pooling)
    assert torch.equal(vectors[:-2], others[:-1])
    assert torch.equal(vectors[-1], others[-1])


def test_wrong_input(encoder, tmp_path):
    with pytest.raises(InputError, match="has 102 tokens, the model takes 40"):
        encoder("crane " * 100)
    with pytest.raises(InputError, match="pooling must be one of mean, max, cls, not 'sum'"):
        encoder.embed(["a"], pooling="sum")
    with pytest.raises(InputError, match=r"--layer 3: the model has the layers 0 \(embeddings\) to 2, or -1 to -3"):
        encoder.embed(["a"], layer=3)
    with pytest.raises(InputError, match="--overlap 38 leaves no room in the 40 tokens"):
        encoder.embed(["a"], long="window", overlap=38)
    with pytest.raises(InputError, match=r"--max-len must be at least 3, .* not 2"):
        encoder.embed(["a"], max_len=2)
    with pytest.raises(InputError, match="no such folder"):
        Encoder.load(tmp_path / "nowhere")


def test_any_iterable_of_texts_and_a_single_one(encoder, texts):
    vectors = encoder.embed(texts)
    for same in (tuple(texts), (text for text in texts), np.array(texts), np.array(texts, object), pd.Series(texts)):
        assert torch.equal(encoder.embed(same), vectors)
    assert encoder.embed(texts[1]).shape == (128,)
    torch.testing.assert_close(encoder.embed(texts[1]), vectors[1])


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, ["a crane"], b"a crane"])
def test_an_item_that_is_not_a_string_is_named(encoder, wrong):
    with pytest.raises(InputError, match=rf"^texts\[2\] is {re.escape(repr(wrong))}, not a string: "):
        encoder.embed(["a crane", "he just left", wrong])


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_normalized(encoder, texts, pooling):
    vectors = encoder.embed(texts, pooling=pooling)
    lengths = vectors.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.embed(texts, pooling=pooling, normalize=True), (vectors / lengths).float())


def test_it_can_be_pickled(encoder, texts):
    encoder.embed(texts)  # fills the tokenizer's caches
    again = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(again.embed(texts), encoder.embed(texts))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_torchs_defaults_have_no_effect(saved_model, encoder, texts, pooling):
    """A program that computes in float64, or on a GPU, may have set them."""
    expected = encoder.embed(texts, pooling=pooling, long="window")
    states = encoder("a crane is flying")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        loaded = Encoder.load(saved_model)
        assert torch.equal(loaded.embed(texts, pooling=pooling, long="window"), expected)
        assert torch.equal(loaded("a crane is flying"), states)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
