"""A text's words are counted the same however it comes, and the rarest are forgotten where memory ends."""

from __future__ import annotations

import itertools
from collections import Counter

from support.tokenizer_texts import TEXTS, wikitext_sentences
from support.trained_tokenizer import count_words, train

from bertfast.config import CorpusConfig
from bertfast.data.tokenizing.word_counts import WordCounter, forget_rarest


def batched(texts: list[str], size: int) -> list[list[str]]:
    return [texts[begin : begin + size] for begin in range(0, len(texts), size)]


def test_more_distinct_words_than_are_kept_in_mind(kind, monkeypatch):
    whole = train(kind, TEXTS, CorpusConfig(min_freq=1)).backend.to_str()
    monkeypatch.setattr("bertfast.data.tokenizing.word_counts._PIECES", 3)
    assert train(kind, TEXTS, CorpusConfig(min_freq=1)).backend.to_str() == whole


def test_the_rarest_words_are_forgotten(monkeypatch):
    words = Counter({"a": 5, "b": 4, "c": 3, "d": 2, "e": 2, "f": 1})
    for order in (1, -1):
        few = Counter(dict(list(words.items())[::order]))
        forget_rarest(few, 6)
        assert few == words
        forget_rarest(few, 5)
        assert few == {"a": 5, "b": 4}
    alike = Counter("edcba")
    forget_rarest(alike, 4)
    assert list(alike) == ["e", "d"]
    monkeypatch.setattr("bertfast.data.tokenizing.word_counts._PIECES", 1000)
    whole = count_words(wikitext_sentences(), "word", True)
    monkeypatch.setattr("bertfast.data.tokenizing.word_counts._WORDS", 2000)
    bounded = count_words(wikitext_sentences(), "word", True)
    assert len(bounded) <= 2000 + 1000
    for word, count in whole.most_common(50):  # what was counted of a word before it was forgotten is lost
        assert 0.95 * count <= bounded[word] <= count
    for at_once in (2, 50, 100_000):  # the same are forgotten, however many texts come at a time
        counter = WordCounter("word", True)
        for texts in batched(wikitext_sentences(), at_once):
            counter.add(texts, Counter(itertools.chain.from_iterable(text.split(" ") for text in texts)))
        assert counter.words() == bounded
