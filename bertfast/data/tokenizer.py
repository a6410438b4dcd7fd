"""Word-level, WordPiece and character tokenizers, over the `tokenizers` library: trained here, or loaded.

The same text always gives the same vocabulary with the same ids: words, characters and merges of equal frequency are
ordered by spelling.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bertfast.config import BertConfig, CorpusConfig
from bertfast.errors import InputError
from bertfast.files import expanded


class SpecialTokens(NamedTuple):
    """The ids of BERT's special tokens; 0 to 4 in a vocabulary trained here."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class Encoded(NamedTuple):
    """A text's tokens, without [CLS] and [SEP]."""

    ids: Sequence[int]
    unknown_characters: int
    """The number of characters in its unknown words."""


PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"

_SPECIAL_TOKEN = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
_CONTINUATION = "##"
# The most distinct pieces of text, between spaces, to cache: ten or twenty megabytes.
_PIECES = 1 << 16
# These never look past a space; neither do `_cased` and `_divided`.
_WORD_BY_WORD_NORMALIZERS = (normalizers.BertNormalizer, normalizers.Lowercase, NoneType)
_WORD_BY_WORD_PRE_TOKENIZERS = (pre_tokenizers.BertPreTokenizer, pre_tokenizers.WhitespaceSplit)
# In characters. WordPiece maps longer words to [UNK], as its time grows with the square of a word's length. If a text
# has many (scripts without spaces, proteins, formulas), a tokenizer trained here splits them.
_LONGEST_WORD = 100
_FEW_LONG = 0.001  # of the characters: up to this share may be unknown, so that the tokenizer stays BERT's own
# In English text, stripping accents changes a smaller share of letters than this.
_FEW_ACCENTS = 0.005
# The languages in which I is not the capital of i.
_DOTLESS = ("tr", "az")
# The most distinct words to count, in one unit of a text and in all of it: tens of megabytes, and 150.
_WORDS = 1 << 18
MOST_WORDS = 1 << 20
# The most words, and distinct words, that WordPiece is trained from: seconds, and 200 megabytes.
_SAMPLE = 1 << 23
_SAMPLE_DISTINCT = 1 << 17
# The WordPiece trainer reads each word as often as it was counted, at most this many times in one string.
_REPEATS = 4096


class Tokenizer:
    """Text to token ids, with BERT's special tokens: `[CLS] a [SEP]` for a text, `[CLS] a [SEP] b [SEP]` for a pair.

    `backend` is the `tokenizers.Tokenizer` that does the work. A special token's name in a text stands for that token,
    as in Hugging Face's libraries.

    Raises `InputError` if the vocabulary lacks one of BERT's special tokens.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        vocabulary = backend.get_vocab()
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise InputError(f"the tokenizer has no {', '.join(missing)}: bertfast needs all of BERT's special tokens")
        self.backend = backend
        self._encode_piece = lru_cache(_PIECES)(self._encode)
        self.vocab_size = 1 + max(vocabulary.values())
        self.special_ids = SpecialTokens(*(vocabulary[token] for token in SPECIAL_TOKENS))
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        backend.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}",
            pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
            special_tokens=[(CLS, self.special_ids.cls), (SEP, self.special_ids.sep)],
        )
        backend.no_padding()
        backend.no_truncation()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the tokenizer without its caches."""
        return _from_json, (self.backend.to_str(),)

    @classmethod
    def load(cls, path: str | Path, lowercase: bool = True, strip_accents: bool | None = None) -> Tokenizer:
        """From a tokenizer.json, a vocab.txt (WordPiece), or a Hugging Face folder that holds either.

        A vocab.txt doesn't say how text is normalised. A tokenizer_config.json beside it does; without one, `lowercase`
        and `strip_accents` (None: as `lowercase`) do.

        Raises `InputError` if there is no tokenizer, or if it lacks BERT's special tokens.
        """
        path = expanded(path)
        if path.is_dir():
            files = [path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()]
            if not files:
                raise InputError(f"{path} holds no tokenizer: neither tokenizer.json nor vocab.txt")
            path = files[0]
        elif not path.is_file():
            raise InputError(f"no such tokenizer: {path}; give word, wordpiece, char, or the path of one")
        try:
            if path.suffix == ".txt":
                return cls(_from_vocab_txt(path, lowercase, strip_accents))
            tokenizer = cls(tokenizers.Tokenizer.from_file(str(path)))
            tokenizer.encode("\U000e0fff a")  # a character without a token: some tokenizers fail only here
            return tokenizer
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{path} is not a tokenizer: {' '.join(str(error).split())}") from None

    @property
    def normalisation(self) -> str:
        """How BERT's normalizer treats text, in words; empty if the tokenizer has another normalizer."""
        normalizer = self.backend.normalizer
        bert = _before_cased(normalizer)
        if not isinstance(bert, normalizers.BertNormalizer):
            return ""
        strips = bert.lowercase if bert.strip_accents is None else bert.strip_accents
        case = f"lower-cased{' with a dotless i' * (bert is not normalizer)}" if bert.lowercase else "cased"
        return f"{case}, accents {'stripped' if strips else 'kept'}"

    @property
    def continuation(self) -> npt.NDArray[np.uint8]:
        """(vocab_size,): 1 for tokens that continue a word (`##ing`)."""
        flags = np.zeros(self.vocab_size, np.uint8)
        prefix = getattr(self.backend.model, "continuing_subword_prefix", None)
        if prefix:
            flags[[id for token, id in self.backend.get_vocab().items() if token.startswith(prefix)]] = 1
        return flags

    def encode_sentences(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of many sentences, without [CLS] and [SEP]."""
        if not self.parts_at_spaces:
            encodings = self.backend.encode_batch_fast(sentences, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        # Most words of a text have been seen before: looking up their cached ids is several times faster.
        return [[id for piece in text.split(" ") for id in self._encode_piece(piece).ids] for text in sentences]

    def encode_pieces(self, pieces: Sequence[str]) -> list[Encoded]:
        """Each piece's tokens. A piece is a whole sentence, or, if `parts_at_spaces`, may lie between two spaces."""
        if self.parts_at_spaces:
            return list(map(self._encode_piece, pieces))
        unk = self.special_ids.unk
        encodings = self.backend.encode_batch_fast(pieces, add_special_tokens=False)
        return [
            self._encode(piece) if unk in encoding.ids else Encoded(encoding.ids, 0)
            for piece, encoding in zip(pieces, encodings, strict=True)
        ]

    def _encode(self, text: str) -> Encoded:
        encoding = self.backend.encode(text, add_special_tokens=False)
        ids, unk = encoding.ids, self.special_ids.unk
        if unk not in ids:
            return Encoded(ids, 0)
        spans = zip(ids, encoding.offsets, strict=True)
        return Encoded(ids, sum(end - begin for id, (begin, end) in spans if id == unk))

    @cached_property
    def parts_at_spaces(self) -> bool:
        """Whether tokenising the pieces between a text's spaces one by one gives the text's tokens."""
        pre_tokenizer = self.backend.pre_tokenizer
        return (
            isinstance(_before_cased(self.backend.normalizer), _WORD_BY_WORD_NORMALIZERS)
            and (isinstance(pre_tokenizer, _WORD_BY_WORD_PRE_TOKENIZERS) or _is(pre_tokenizer, _divided()))
            and set(self.backend.get_added_tokens_decoder()) == set(self.special_ids)
        )

    def encode(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """Token ids and token types of `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`."""
        encoding = self.backend.encode(text, pair)
        return encoding.ids, encoding.type_ids

    def offsets(self, text: str, pair: str | None = None) -> list[tuple[int, int]]:
        """The (begin, end) character span in its text of each token that `encode` returns."""
        offsets: list[tuple[int, int]] = self.backend.encode(text, pair).offsets
        return offsets

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The tokens with these ids; [UNK] for an id without a token."""
        return [self.backend.id_to_token(id) or UNK for id in ids]

    def _lines(self) -> Iterator[str]:
        """Each id's token; an unused name if the id has none, or one that doesn't fit on a line."""
        vocabulary = self.backend.get_vocab()
        tokens = {id: token for token, id in vocabulary.items()}
        for id in range(self.vocab_size):
            token = tokens.get(id, "")
            if token and token == token.strip() and len(token.splitlines()) == 1:
                yield token
            else:
                name = f"[unused{id}]"
                while name in vocabulary:
                    name = f"[{name}]"
                yield name

    def save(self, folder: str | Path, max_len: int) -> None:
        """Writes the files from which `transformers.AutoTokenizer` loads the same tokenizer.

        `max_len` becomes its `model_max_length`.
        """
        folder = Path(folder)
        # The library's own `save` doesn't raise OSError when the disk is full.
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        roles = (f"{field}_token" for field in SpecialTokens._fields)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_len,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **dict(zip(roles, SPECIAL_TOKENS, strict=True)),
        }
        model, normalizer = self.backend.model, self.backend.normalizer
        if isinstance(model, models.WordPiece):
            (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in self._lines()), encoding="utf-8")
            if isinstance(normalizer, normalizers.BertNormalizer) and isinstance(
                self.backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer
            ):
                settings["tokenizer_class"] = "BertTokenizer"
                settings["do_lower_case"] = normalizer.lowercase
                settings["strip_accents"] = normalizer.strip_accents
                settings["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _from_json(backend: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(backend))


def train_word(texts: Iterable[str], config: CorpusConfig) -> Tokenizer:
    """A word-level tokenizer, trained from texts: see `word_tokenizer`."""
    return word_tokenizer(count_words(texts, "word", config.lowercase, config.base_language), config)


def train_wordpiece(texts: Iterable[str], config: CorpusConfig) -> Tokenizer:
    """A WordPiece tokenizer, trained from texts: see `wordpiece_tokenizer`."""
    return wordpiece_tokenizer(count_words(texts, "wordpiece", config.lowercase, config.base_language), config)


def count_words(texts: Iterable[str], kind: str, lowercase: bool, language: str = "en") -> Counter[str]:
    """How often each word occurs in texts: see `WordCounter`."""
    counter = WordCounter(kind, lowercase, language)
    for text in texts:
        counter.add([text], Counter(text.split(" ")))
    return counter.words()


class WordCounter:
    """Counts words, with the text lower-cased and split as a tokenizer of a kind does it.

    Special tokens are left out. Accents and long words are kept: the counts decide later how to treat them. If there
    are too many distinct words to keep in memory, the rarest are dropped.
    """

    def __init__(self, kind: str, lowercase: bool, language: str = "en") -> None:
        self._backend = _BACKENDS[kind]({}, _Way(lowercase, language=language))
        self._words: Counter[str] = Counter()
        self._pieces: Counter[str] = Counter()  # not yet split into words

    def add(self, texts: Sequence[str], pieces: Mapping[str, int]) -> None:
        """Counts the words of texts. `pieces`: how often each piece of text between spaces occurs in them."""
        if len(self._pieces) + sum(piece not in self._pieces for piece in pieces) <= _PIECES:
            self._pieces.update(pieces)
        elif len(texts) == 1:
            self._pieces.update(pieces)
            self._split_pieces()
        else:  # which words are dropped must not depend on the number of texts at a time
            for text in texts:
                self.add([text], Counter(text.split(" ")))

    def words(self) -> Counter[str]:
        """The counts."""
        self._split_pieces()
        return self._words

    def _split_pieces(self) -> None:
        # Only the distinct pieces between spaces need splitting, and they are far fewer than all.
        normalizer, pre_tokenizer = self._backend.normalizer, self._backend.pre_tokenizer
        normalize = normalizer.normalize_str if normalizer else str
        for piece, count in self._pieces.items():
            for part in _SPECIAL_TOKEN.split(piece):
                for word, _ in pre_tokenizer.pre_tokenize_str(normalize(part)):
                    self._words[word] += count
        self._pieces.clear()
        forget_rarest(self._words, _WORDS)


def forget_rarest(words: Counter[str], most: int) -> None:
    """If there are more than `most` words, keeps the `most // 2` most frequent, or fewer if counts are tied."""
    if len(words) > most:
        bound = sorted(words.values())[-(most // 2) - 1]
        for word in [word for word, count in words.items() if count <= bound]:
            del words[word]


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
    return Tokenizer(_word_backend(vocabulary, _Way(config.lowercase, language=config.base_language)))


def wordpiece_tokenizer(words: Counter[str], config: CorpusConfig) -> Tokenizer:
    """BERT's WordPiece, of at most `vocab_size` tokens (BERT's own 30,522 if that is not set).

    `words` still have their accents. `strip_accents` says whether to strip them. If it is not set, they are stripped
    when text is lower-cased and English: `language` is "en" and few letters have accents. Words longer than BERT's
    tokenizer takes are split if there are more than a few.

    A character, or a pair to merge, seen less than `min_freq` times gets no token. If there are too many words, pairs
    come from a sample in which each word's count is scaled down by the same factor.
    """
    way, words = _way(words, config)
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
    return Tokenizer(_wordpiece_backend(learner.get_vocab(with_added_tokens=False), way))


def char_tokenizer(words: Counter[str], config: CorpusConfig) -> Tokenizer:
    """A token for each character that occurs `min_freq` times, and another for it inside a word.

    This is a WordPiece tokenizer without merges; everything else is as in `wordpiece_tokenizer`.
    """
    way, words = _way(words, config)
    letters, continuations = _alphabet(words, config.min_freq, config.vocab_size or BertConfig.vocab_size)
    return Tokenizer(_wordpiece_backend(_numbered([*SPECIAL_TOKENS, *sorted(letters), *continuations]), way))


def sampled_share(words: Counter[str]) -> float:
    """The share of all words that WordPiece is trained from: 1 unless there are millions."""
    return min(1.0, _SAMPLE / max(1, words.total()))


TRAINERS = {"word": word_tokenizer, "wordpiece": wordpiece_tokenizer, "char": char_tokenizer}


class _Way(NamedTuple):
    """How a text is normalised and split before its words are looked up."""

    lowercase: bool
    strip_accents: bool | None = False
    """None: as `lowercase`."""
    language: str = "en"
    divides_words: bool = False


def _way(words: Counter[str], config: CorpusConfig) -> tuple[_Way, Counter[str]]:
    """Chooses how to treat the words, given with accents and at any length; returns that, and the words so treated."""
    letters = long = 0
    characters: Counter[str] = Counter()
    for word, count in words.items():
        letters += len(word) * count
        long += len(word) * count if len(word) > _LONGEST_WORD else 0
        for letter in "" if word.isascii() else word:
            characters[letter] += count
    strips = config.strip_accents
    if strips is None:
        changed = sum(count for letter, count in characters.items() if _has_accent(letter))
        strips = config.lowercase and config.base_language == "en" and changed <= _FEW_ACCENTS * letters
    way = _Way(config.lowercase, strips, config.base_language, long > _FEW_LONG * letters)
    if not (way.strip_accents or way.divides_words):
        return way, words
    backend = _wordpiece_backend({}, way)
    found: Counter[str] = Counter()
    normalize, split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
    for word, count in words.items():
        if word.isascii() and not way.divides_words:  # most have no accents to strip
            found[word] += count
        else:
            for part, _ in split(normalize(word)):
                found[part] += count
    return way, found


def normalisation(config: CorpusConfig) -> tuple[bool | str, ...]:
    """What determines the normalisation of a trained tokenizer, besides the text."""
    dotless = config.base_language if config.lowercase and config.base_language in _DOTLESS else ""
    if config.tokenizer == "word":
        return config.lowercase, dotless
    strips = "in English" if config.base_language == "en" else False
    return config.lowercase, dotless, strips if config.strip_accents is None else config.strip_accents


def _has_accent(letter: str) -> bool:
    """Whether stripping accents changes the letter."""
    return unicodedata.category(letter) == "Mn" or unicodedata.normalize("NFD", letter) != letter


def _from_vocab_txt(path: Path, lowercase: bool, strip_accents: bool | None) -> tokenizers.Tokenizer:
    backend = _wordpiece_backend(models.WordPiece.read_file(str(path)), _Way(lowercase, strip_accents))
    beside = path.with_name("tokenizer_config.json")
    if not beside.is_file():
        return backend
    settings = json.loads(beside.read_text(encoding="utf-8"))
    kind = settings.get("tokenizer_class") or "BertTokenizer"
    if kind not in ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast"):
        raise InputError(
            f"a {kind} parts text in a way of its own; only a tokenizer.json, or BERT's own, can be loaded"
        )
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", lowercase),
        strip_accents=settings.get("strip_accents", strip_accents),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    return backend


def _word_backend(vocabulary: dict[str, int], way: _Way) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    if way.lowercase:
        normalizer = normalizers.Lowercase()
        backend.normalizer = _cased(normalizer) if way.language in _DOTLESS else normalizer
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def _wordpiece_backend(vocabulary: dict[str, int], way: _Way) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    normalizer = normalizers.BertNormalizer(lowercase=way.lowercase, strip_accents=way.strip_accents)
    backend.normalizer = _cased(normalizer) if way.lowercase and way.language in _DOTLESS else normalizer
    backend.pre_tokenizer = _divided() if way.divides_words else pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=_CONTINUATION)
    return backend


_BACKENDS = {"word": _word_backend, "wordpiece": _wordpiece_backend, "char": _wordpiece_backend}


def _cased(normalizer: normalizers.Normalizer) -> normalizers.Normalizer:
    """A lower-casing normalizer, extended to map the I of Turkish and Azeri correctly."""
    return normalizers.Sequence([normalizers.Replace("İ", "i"), normalizers.Replace("I", "ı"), normalizer])


def _before_cased(normalizer: Any) -> Any:
    """The argument of `_cased`, if that made this normalizer; else the normalizer itself."""
    ways = (normalizers.BertNormalizer(lowercase=True, strip_accents=strips) for strips in (None, False, True))
    lower = (normalizers.Lowercase(), *ways)
    return next((each for each in lower if _is(normalizer, _cased(each))), normalizer)


def _divided() -> pre_tokenizers.PreTokenizer:
    """BERT's pre-tokenizer, with long words split into pieces."""
    piece = tokenizers.Regex(rf"[\s\S]{{{_LONGEST_WORD}}}")
    return pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(piece, "isolated")])


def _is(component: Any, other: Any) -> bool:
    """Whether two normalizers or pre-tokenizers do the same."""
    return type(component) is type(other) and bool(component.__getstate__() == other.__getstate__())


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


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
    return letters, [_CONTINUATION + letter for letter in sorted(letters & inside)]


def _repeated(words: dict[str, int]) -> Iterator[str]:
    for word, count in words.items():
        for done in range(0, count, _REPEATS):
            yield f"{word} " * min(_REPEATS, count - done)
