"""How a tokenizer normalises text and splits it into words, whose tokens are then looked up."""

from __future__ import annotations

from types import NoneType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bertfast.config import CorpusConfig
from bertfast.data.tokenizing.special_tokens import UNK

CONTINUATION = "##"
"""Begins a token inside a word."""
# These never look past a space; neither do `_cased` and `_divided`.
_WORD_BY_WORD_NORMALIZERS = (normalizers.BertNormalizer, normalizers.Lowercase, NoneType)
_WORD_BY_WORD_PRE_TOKENIZERS = (pre_tokenizers.BertPreTokenizer, pre_tokenizers.WhitespaceSplit)
# In characters. WordPiece maps longer words to [UNK], as its time grows with the square of a word's length. If a text
# has many (scripts without spaces, proteins, formulas), a tokenizer trained here splits them.
LONGEST_WORD = 100
# The languages in which I is not the capital of i.
_DOTLESS = ("tr", "az")


class Splitting(NamedTuple):
    """How a text is normalised and split before its words are looked up."""

    lowercase: bool
    strip_accents: bool | None = False
    """None: as `lowercase`."""
    language: str = "en"
    divides_words: bool = False


def word_backend(vocabulary: dict[str, int], splitting: Splitting) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    if splitting.lowercase:
        normalizer = normalizers.Lowercase()
        backend.normalizer = _cased(normalizer) if splitting.language in _DOTLESS else normalizer
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def wordpiece_backend(vocabulary: dict[str, int], splitting: Splitting) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    normalizer = normalizers.BertNormalizer(lowercase=splitting.lowercase, strip_accents=splitting.strip_accents)
    backend.normalizer = _cased(normalizer) if splitting.lowercase and splitting.language in _DOTLESS else normalizer
    backend.pre_tokenizer = _divided() if splitting.divides_words else pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return backend


BACKENDS = {"word": word_backend, "wordpiece": wordpiece_backend, "char": wordpiece_backend}


def normalisation(config: CorpusConfig) -> tuple[bool | str, ...]:
    """What determines the normalisation of a trained tokenizer, besides the text."""
    dotless = config.base_language if config.lowercase and config.base_language in _DOTLESS else ""
    if config.tokenizer == "word":
        return config.lowercase, dotless
    strips = "in English" if config.base_language == "en" else False
    return config.lowercase, dotless, strips if config.strip_accents is None else config.strip_accents


def normalisation_in_words(normalizer: Any) -> str:
    """How BERT's normalizer treats text; empty if this is another normalizer."""
    bert = _before_cased(normalizer)
    if not isinstance(bert, normalizers.BertNormalizer):
        return ""
    strips = bert.lowercase if bert.strip_accents is None else bert.strip_accents
    case = f"lower-cased{' with a dotless i' * (bert is not normalizer)}" if bert.lowercase else "cased"
    return f"{case}, accents {'stripped' if strips else 'kept'}"


def looks_past_no_space(backend: tokenizers.Tokenizer) -> bool:
    """Whether normalising and splitting the pieces between a text's spaces one by one gives the text's words."""
    pre_tokenizer = backend.pre_tokenizer
    return isinstance(_before_cased(backend.normalizer), _WORD_BY_WORD_NORMALIZERS) and (
        isinstance(pre_tokenizer, _WORD_BY_WORD_PRE_TOKENIZERS) or _is(pre_tokenizer, _divided())
    )


def _cased(normalizer: normalizers.Normalizer) -> normalizers.Normalizer:
    """A lower-casing normalizer, extended to map the I of Turkish and Azeri correctly."""
    return normalizers.Sequence([normalizers.Replace("İ", "i"), normalizers.Replace("I", "ı"), normalizer])


def _before_cased(normalizer: Any) -> Any:
    """The argument of `_cased`, if that made this normalizer; else the normalizer itself."""
    bert = (normalizers.BertNormalizer(lowercase=True, strip_accents=strips) for strips in (None, False, True))
    return next((lower for lower in (normalizers.Lowercase(), *bert) if _is(normalizer, _cased(lower))), normalizer)


def _divided() -> pre_tokenizers.PreTokenizer:
    """BERT's pre-tokenizer, with long words split into pieces."""
    piece = tokenizers.Regex(rf"[\s\S]{{{LONGEST_WORD}}}")
    return pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(piece, "isolated")])


def _is(component: Any, other: Any) -> bool:
    """Whether two normalizers or pre-tokenizers do the same."""
    return type(component) is type(other) and bool(component.__getstate__() == other.__getstate__())
