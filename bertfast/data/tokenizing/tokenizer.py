"""Text to token ids, over the `tokenizers` library: a tokenizer that is loaded, saved and encodes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from bertfast.data.tokenizing.special_tokens import CLS, SEP, SPECIAL_TOKENS, UNK, SpecialTokens
from bertfast.data.tokenizing.splitting import Splitting, looks_past_no_space, normalisation_in_words, wordpiece_backend
from bertfast.errors import InputError
from bertfast.files import expanded

# The most distinct pieces of text, between spaces, to cache: ten or twenty megabytes of ordinary words.
_PIECES = 1 << 16
# In characters: longer pieces, as in scripts without spaces, seldom recur, and would take gigabytes.
_LONGEST_PIECE = 32


class Encoding(NamedTuple):
    """The tokens of a text or a pair, special tokens included."""

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int]]
    """The (begin, end) character span of each token in its text."""


class Encoded(NamedTuple):
    """A text's tokens, without [CLS] and [SEP]."""

    ids: Sequence[int]
    unknown_characters: int
    """The number of characters in its unknown words."""


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
        return normalisation_in_words(self.backend.normalizer)

    @property
    def prefix(self) -> str:
        """How tokens that continue a word begin (the `##` of `##ing`); empty if the tokenizer doesn't mark them."""
        return getattr(self.backend.model, "continuing_subword_prefix", None) or ""

    @property
    def continuation(self) -> npt.NDArray[np.uint8]:
        """(vocab_size,): 1 for tokens that continue a word."""
        flags = np.zeros(self.vocab_size, np.uint8)
        if prefix := self.prefix:
            flags[[id for token, id in self.backend.get_vocab().items() if token.startswith(prefix)]] = 1
        return flags

    def encode_sentences(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of many sentences, without [CLS] and [SEP]."""
        if not self.splits_at_spaces:
            encodings = self.backend.encode_batch_fast(sentences, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        # Most words of a text have been seen before: looking up their cached ids is several times faster.
        return [[id for each in self.encode_pieces(text.split(" ")) for id in each.ids] for text in sentences]

    def encode_pieces(self, pieces: Sequence[str]) -> list[Encoded]:
        """Each piece's tokens. A piece is a whole sentence, or, if `splits_at_spaces`, may lie between two spaces."""
        if self.splits_at_spaces:
            cached, encode = self._encode_piece, self._encode
            return [(cached if len(piece) <= _LONGEST_PIECE else encode)(piece) for piece in pieces]
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
    def splits_at_spaces(self) -> bool:
        """Whether tokenising the pieces between a text's spaces one by one gives the text's tokens."""
        special = set(self.special_ids)
        return looks_past_no_space(self.backend) and set(self.backend.get_added_tokens_decoder()) == special

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """The tokens of `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`."""
        encoding = self.backend.encode(text, pair)
        return Encoding(encoding.ids, encoding.type_ids, encoding.offsets)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The tokens with these ids; [UNK] for an id without a token."""
        return [self.backend.id_to_token(id) or UNK for id in ids]

    def _lines(self) -> Iterator[str]:
        """Each id's token; an unused name if the id has none, or one that doesn't fit on a line."""
        vocabulary = self.backend.get_vocab()
        tokens = {id: token for token, id in vocabulary.items()}
        for id in range(self.vocab_size):
            token = tokens.get(id, "")
            if token == token.strip() and len(token.splitlines()) == 1:
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


def _from_vocab_txt(path: Path, lowercase: bool, strip_accents: bool | None) -> tokenizers.Tokenizer:
    backend = wordpiece_backend(models.WordPiece.read_file(str(path)), Splitting(lowercase, strip_accents))
    beside = path.with_name("tokenizer_config.json")
    if not beside.is_file():
        return backend
    settings = json.loads(beside.read_text(encoding="utf-8"))
    kind = settings.get("tokenizer_class") or "BertTokenizer"
    if kind not in ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast"):
        raise InputError(
            f"a {kind} splits text in a way of its own; only a tokenizer.json, or BERT's own, can be loaded"
        )
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", lowercase),
        strip_accents=settings.get("strip_accents", strip_accents),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    return backend
