"""The encoder; its numbers are compared with transformers' in test_huggingface."""

import pytest
import torch

from bertfast import encode
from bertfast.config import BertConfig, CorpusConfig
from bertfast.encode import Encoder
from bertfast.errors import InputError
from bertfast.model import Bert
from bertfast.tokenizer import train_word

WORDS = "a crane is flying driver came he just left".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def encoder():
    tokenizer = train_word([" ".join(WORDS)], CorpusConfig(min_freq=1))
    torch.manual_seed(0)
    model = Bert(BertConfig(vocab_size=tokenizer.vocab_size, initializer_range=0.2, max_position_embeddings=40))
    return Encoder(model, tokenizer)


def test_the_notebooks_shapes(encoder):
    encoded = encoder("a crane is flying")
    assert encoded.shape == (1, 6, 128)
    assert encoded[:, 0, :].shape == (1, 128)
    assert encoder("a crane driver came", "he just left").shape == (1, 10, 128)
    assert encoder.tokens("a crane", "he left") == ["[CLS]", "a", "crane", "[SEP]", "he", "left", "[SEP]"]


def test_the_same_word_differs_by_context(encoder):
    """The notebook's closing remark: crane the bird, crane the machine."""
    bird, machine = encoder("a crane is flying")[0, 2], encoder("a crane driver came", "he just left")[0, 2]
    assert not torch.allclose(bird, machine, atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embed_keeps_order_and_is_independent_of_the_other_texts(encoder, pooling, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randint(len(WORDS), (n,), generator=generator).tolist() for n in (3, 30, 0, 1, 17, 17, 2) * 5]
    texts = [" ".join(WORDS[i] for i in pick) for pick in picks]
    monkeypatch.setattr(encode, "_BATCH_TOKENS", 100)  # several batches
    vectors = encoder.embed(texts, pooling=pooling)
    assert vectors.shape == (35, 128)
    for text, vector in zip(texts, vectors, strict=True):
        states = encoder(text)[0]
        torch.testing.assert_close(vector, states.mean(0) if pooling == "mean" else states[0], rtol=1e-4, atol=1e-4)
    assert encoder.embed([]).shape == (0, 128)


def test_wrong_input(encoder, tmp_path):
    with pytest.raises(InputError, match="has 102 tokens, the model takes 40"):
        encoder("crane " * 100)
    with pytest.raises(InputError, match="pooling must be one of mean, cls"):
        encoder.embed(["a"], pooling="max")
    with pytest.raises(InputError, match="no such folder"):
        Encoder.load(tmp_path / "nowhere")
