"""Tokenizers trained from a few texts in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bertfast.config import CorpusConfig
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.data.tokenizing.training import TRAINERS
from bertfast.data.tokenizing.word_counts import WordCounter


def count_words(texts: Iterable[str], kind: str, lowercase: bool, language: str = "en") -> Counter[str]:
    """How often each word occurs in texts: see `WordCounter`."""
    counter = WordCounter(kind, lowercase, language)
    for text in texts:
        counter.add([text], Counter(text.split(" ")))
    return counter.words()


def train(kind: str, texts: Iterable[str], config: CorpusConfig) -> Tokenizer:
    return TRAINERS[kind](count_words(texts, kind, config.lowercase, config.base_language), config)


def train_word(texts: Iterable[str], config: CorpusConfig) -> Tokenizer:
    return train("word", texts, config)


def train_wordpiece(texts: Iterable[str], config: CorpusConfig) -> Tokenizer:
    return train("wordpiece", texts, config)
