"""Makes a word-level, WordPiece or character tokenizer from the counts of a text's words.

The same text always gives the same vocabulary with the same ids: words, characters and merges of equal frequency are
ordered by spelling.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bertfast.config import BertConfig, CorpusConfig
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS, UNK
from bertfast.data.tokenizing.splitting import CONTINUATION, LONGEST_WORD, Splitting, word_backend, wordpiece_backend
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError

_FEW_LONG = 0.001  # of the characters: up to this share may be unknown, so that the tokenizer stays BERT's own
# In English text, stripping accents changes a smaller share of letters than this.
_FEW_ACCENTS = 0.005
# The most words, and distinct words, that WordPiece is trained from: seconds, and 200 megabytes.
_SAMPLE = 1 << 23
_SAMPLE_DISTINCT = 1 << 17
# The WordPiece trainer reads each word as often as it was counted, at most this many times in one string.
_REPEATS = 4096


def word_tokenizer(words: Counter[str], config: CorpusConfig) -> Tokenizer:
    """A token for every word (between whitespace) seen at least `min_freq` times, the most frequent first.

    This is the notebook's vocabulary. `vocab_size`, if set, limits it.
    """
    frequent = sorted((-count, word) for word, count in words.items() if count >= config.min_freq)
    if config.vocab_size:
        frequent = frequent[: config.vocab_size - len(SPECIAL_TOKENS)]
    if not frequent:
        raise InputError(
            f"no word occurs {config.min_freq} times: give more text, a lower --min-freq or --tokenizer wordpiece"
        )
    vocabulary = _numbered([*SPECIAL_TOKENS, *(word for _, word in frequent)])
    return Tokenizer(word_backend(vocabulary, Splitting(config.lowercase, language=config.base_language)))


def wordpiece_tokenizer(words: Counter[str], config: CorpusConfig) -> Tokenizer:
    """BERT's WordPiece, of at most `vocab_size` tokens (BERT's own 30,522 if that is not set).

    `words` still have their accents. `strip_accents` says whether to strip them. If it is not set, they are stripped
    when text is lower-cased and English: `language` is "en" and few letters have accents. Words longer than BERT's
    tokenizer takes are split if there are more than a few.

    A character, or a pair to merge, seen less than `min_freq` times gets no token. If there are too many words, pairs
    come from a sample in which each word's count is scaled down by the same factor.
    """
    splitting, words = _choose_splitting(words, config)
    vocab_size = config.vocab_size or BertConfig.vocab_size
    letters, continuations = _alphabet(words, config.min_freq, vocab_size)
    # The trainer numbers the continuing characters in the order of a randomly seeded hash table, and breaks ties
    # between merges by these numbers. Passed as special tokens they are numbered first, in the order given. The trainer
    # takes texts, not counts; hence the repetition.
    share = sampled_share(words)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=max(1, round(config.min_freq * share)),
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        initial_alphabet=sorted(letters),  # the sample may lack some
        show_progress=False,
    )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    counts = {word: round(count * share) for word, count in words.items() if letters.issuperset(word)}
    most = sorted(counts, key=lambda word: (-counts[word], word))[:_SAMPLE_DISTINCT]
    learner.train_from_iterator(_repeated({word: counts[word] for word in most}), trainer)
    return Tokenizer(wordpiece_backend(learner.get_vocab(with_added_tokens=False), splitting))


def char_tokenizer(words: Counter[str], config: CorpusConfig) -> Tokenizer:
    """A token for each character that occurs `min_freq` times, and another for it inside a word.

    This is a WordPiece tokenizer without merges; everything else is as in `wordpiece_tokenizer`.
    """
    splitting, words = _choose_splitting(words, config)
    letters, continuations = _alphabet(words, config.min_freq, config.vocab_size or BertConfig.vocab_size)
    return Tokenizer(wordpiece_backend(_numbered([*SPECIAL_TOKENS, *sorted(letters), *continuations]), splitting))


def sampled_share(words: Counter[str]) -> float:
    """The share of all words that WordPiece is trained from: 1 unless there are millions."""
    return min(1.0, _SAMPLE / max(1, words.total()))


TRAINERS = {"word": word_tokenizer, "wordpiece": wordpiece_tokenizer, "char": char_tokenizer}


def _choose_splitting(words: Counter[str], config: CorpusConfig) -> tuple[Splitting, Counter[str]]:
    """Chooses how to treat the words, given with accents and at any length; returns that, and the words so treated."""
    letters = long = 0
    characters: Counter[str] = Counter()
    for word, count in words.items():
        letters += len(word) * count
        long += len(word) * count if len(word) > LONGEST_WORD else 0
        for letter in "" if word.isascii() else word:
            characters[letter] += count
    strips = config.strip_accents
    if strips is None:
        changed = sum(count for letter, count in characters.items() if _has_accent(letter))
        strips = config.lowercase and config.base_language == "en" and changed <= _FEW_ACCENTS * letters
    splitting = Splitting(config.lowercase, strips, config.base_language, long > _FEW_LONG * letters)
    if not (splitting.strip_accents or splitting.divides_words):
        return splitting, words
    backend = wordpiece_backend({}, splitting)
    found: Counter[str] = Counter()
    normalize, split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
    for word, count in words.items():
        if word.isascii() and not splitting.divides_words:  # most have no accents to strip
            found[word] += count
        else:
            for part, _ in split(normalize(word)):
                found[part] += count
    return splitting, found


def _has_accent(letter: str) -> bool:
    """Whether stripping accents changes the letter."""
    return unicodedata.category(letter) == "Mn" or unicodedata.normalize("NFD", letter) != letter


def _alphabet(words: Counter[str], min_freq: int, vocab_size: int) -> tuple[set[str], list[str]]:
    """The characters that get tokens, the most frequent first until the vocabulary is full, and their `##` tokens."""
    room = vocab_size - len(SPECIAL_TOKENS)
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for letter in word:
            counts[letter] += count
    letters: set[str] = set()
    for count, letter in sorted((-count, letter) for letter, count in counts.items()):
        room -= 2 if letter in inside else 1
        if -count < min_freq or room < 0:
            break
        letters.add(letter)
    if not letters:
        raise InputError(
            f"no letter that occurs {min_freq} times fits into {vocab_size} tokens: give more text, a lower "
            "--min-freq or a larger --vocab-size"
        )
    return letters, [CONTINUATION + letter for letter in sorted(letters & inside)]


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def _repeated(words: dict[str, int]) -> Iterator[str]:
    for word, count in words.items():
        for done in range(0, count, _REPEATS):
            yield f"{word} " * min(_REPEATS, count - done)
