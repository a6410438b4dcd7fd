"""Vocabularies against the notebook's: the same words, the same ids in every process, and how text bounds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.notebook import import_d2l, notebook_paragraphs
from support.tokenizer_texts import TEXTS, wikitext_sentences
from support.trained_tokenizer import count_words, train, train_word, train_wordpiece

from bertfast.config import CorpusConfig
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS, SpecialTokens
from bertfast.data.tokenizing.training import sampled_share, word_tokenizer, wordpiece_tokenizer
from bertfast.errors import InputError

# The notebook's names of the special tokens, and BERT's.
NAMES = {"<pad>": "[PAD]", "<unk>": "[UNK]", "<cls>": "[CLS]", "<sep>": "[SEP]", "<mask>": "[MASK]"}


def test_the_word_vocabulary_is_the_notebooks():
    d2l = import_d2l()
    words = [sentence.split() for paragraph in notebook_paragraphs() for sentence in paragraph]
    theirs = d2l.Vocab(words, min_freq=5, reserved_tokens=["<pad>", "<mask>", "<cls>", "<sep>"])
    ours = train_word(wikitext_sentences(), CorpusConfig())
    assert ours.vocab_size == len(theirs) == 6899
    assert set(ours.backend.get_vocab()) == {NAMES.get(token, token) for token in theirs.idx_to_token}


def test_words_are_numbered_by_frequency_then_spelling():
    tokenizer = train_word(["b c a", "c b", "c", "rare"], CorpusConfig(min_freq=1))
    assert tokenizer.tokens(range(tokenizer.vocab_size)) == [*SPECIAL_TOKENS, "c", "b", "a", "rare"]


def test_special_tokens_come_first(trained):
    assert trained.special_ids == SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert trained.tokens(range(5)) == list(SPECIAL_TOKENS)


@pytest.mark.parametrize("min_freq", [1, 3, 5])
def test_min_freq(min_freq):
    texts = [" ".join(word for word, count in (("one", 1), ("three", 3), ("five", 5)) if i < count) for i in range(5)]
    tokenizer = train_word(texts, CorpusConfig(min_freq=min_freq))
    assert set(tokenizer.backend.get_vocab()) - set(SPECIAL_TOKENS) == {
        word for word, count in (("one", 1), ("three", 3), ("five", 5)) if count >= min_freq
    }


def test_vocab_size_cuts_off(kind):
    for size in (60, 100, 1000):
        tokenizer = train(kind, wikitext_sentences()[:3000], CorpusConfig(vocab_size=size))
        assert tokenizer.vocab_size <= size
        if kind == "word":
            assert tokenizer.vocab_size == size
    assert (tokenizer.vocab_size == 1000) == (kind != "char")


def test_a_vocabulary_too_small_for_a_letter():
    with pytest.raises(InputError, match=r"fits into 6 tokens: give more text, .* or a larger --vocab-size$"):
        train_wordpiece(wikitext_sentences()[:3000], CorpusConfig(vocab_size=6))


def test_every_frequent_character_has_a_token():
    """So only words with rare characters are unknown."""
    counts = Counter(letter for sentence in wikitext_sentences() for letter in sentence.lower() if letter != " ")
    vocabulary = train_wordpiece(wikitext_sentences(), CorpusConfig()).backend.get_vocab()
    assert {letter for letter, count in counts.items() if count >= 50 and letter.isascii()} <= set(vocabulary)


def test_wordpiece_continuations():
    tokenizer = train_wordpiece(TEXTS, CorpusConfig(min_freq=5))
    tokens = tokenizer.tokens(range(tokenizer.vocab_size))
    assert tokenizer.continuation.tolist() == [token.startswith("##") for token in tokens]
    assert tokenizer.continuation.any()
    assert not train_word(["##a b"], CorpusConfig(min_freq=1)).continuation.any()


SAME = """
import hashlib, json, sys
from bertfast.config import CorpusConfig
from support.trained_tokenizer import train_word, train_wordpiece
texts = json.load(sys.stdin)
for train in (train_word, train_wordpiece):
    for min_freq in (1, 2):
        print(hashlib.sha256(train(texts, CorpusConfig(min_freq=min_freq)).backend.to_str().encode()).hexdigest())
"""


def test_the_same_text_gives_the_same_ids():
    """Over processes, whose hash tables have other seeds, and with other words first."""
    texts = wikitext_sentences()[:1500]
    outputs = set()
    for seed, order in (("1", texts), ("2", texts), ("3", texts[::-1])):
        done = subprocess.run(
            [sys.executable, "-c", SAME],
            input=json.dumps(order),
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_special_tokens_in_a_text_are_not_learnt_as_words(trained):
    assert not {"[mask]s", "and[SEP]more", "[unk]"} & set(trained.backend.get_vocab())
    assert trained.encode("a [MASK]")[0][-2:] == [4, 3]


@pytest.mark.parametrize("texts", [[], [""], ["once only"]])
def test_too_little_text(kind, texts):
    with pytest.raises(InputError, match=r"occurs 5 times.*: give more text.* a lower --min-freq"):
        train(kind, texts, CorpusConfig())


def test_counts_beyond_64_bits_and_a_sample_in_proportion(monkeypatch):
    """As many times as many words, and of these a sample of the original size: the same vocabulary."""
    words = count_words(wikitext_sentences()[:4000], "wordpiece", True)
    expected = wordpiece_tokenizer(words, CorpusConfig()).backend.to_str()
    monkeypatch.setattr("bertfast.data.tokenizing.training._SAMPLE", words.total())
    for times in (1, 1 << 30, 1 << 60):
        many = Counter({word: count * times for word, count in words.items()})
        assert sampled_share(many) == 1 / times
        assert wordpiece_tokenizer(many, CorpusConfig(min_freq=5 * times)).backend.to_str() == expected
    many = Counter({word: count << 60 for word, count in words.items()})
    ours = word_tokenizer(many, CorpusConfig(min_freq=5 << 60)).backend.to_str()
    assert ours == word_tokenizer(words, CorpusConfig()).backend.to_str()


def test_a_sample_has_the_most_frequent_words(monkeypatch):
    monkeypatch.setattr("bertfast.data.tokenizing.training._SAMPLE_DISTINCT", 2)
    words = Counter({"abab": 9, "abcd": 8, "xyxy": 7})
    vocabulary = wordpiece_tokenizer(words, CorpusConfig(min_freq=1)).backend.get_vocab()
    assert {"abab", "abcd", "x", "##y"} <= set(vocabulary)
    assert not {"xy", "##xy"} & set(vocabulary)
