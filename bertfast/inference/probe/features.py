"""What a probe knows of a text: its words, and its vectors by a model and by the same model untrained."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import normalizers, pre_tokenizers

from bertfast.config import EncodeConfig
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.log import progress_bar
from bertfast.model import Bert

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

SEED = 0
"""Of all that is random in a probe, so that the same files always give the same figures."""

_NORMALIZER = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()


def require_scikit_learn() -> None:
    """Raises InputError if scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise InputError("a probe needs scikit-learn: pip install 'bertfast[probe]'")


def words(text: str) -> list[str]:
    """A text's lower-cased words, whatever the model's vocabulary: as BERT divides them, each punctuation mark and each
    Chinese character is one."""
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]


def tf_idf(longest: int) -> Any:
    """scikit-learn's vectorizer for runs of up to `longest` words, with 1 + log(count) as a run's frequency."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # here, since importing it is slow

    return TfidfVectorizer(
        tokenizer=words, token_pattern=None, lowercase=False, ngram_range=(1, longest), sublinear_tf=True
    )


def vectors(encoder: Encoder, texts: Sequence[str], config: EncodeConfig) -> tuple[Vectors, Vectors]:
    """(texts, hidden): the texts' vectors as `Encoder.embed` gives them, and those of random weights.

    The random weights are newly initialised ones of the same model. Warns if texts were truncated.
    """
    with progress_bar(desc="vectors", total=2 * len(texts), unit=" texts", leave=False) as bar:
        found = []
        for each in (encoder, _untrained(encoder)):
            before = bar.n

            def advance(pieces: int, most: int = before + len(texts)) -> None:
                bar.update(min(pieces, most - bar.n))  # a windowed text is several pieces

            of_texts, truncated = each.embed_texts(texts, config, advance)
            found.append(of_texts.numpy())
    if truncated:
        logger.warning("%s of %s texts were %s", truncated, len(texts), encoder.truncation(config))
    return found[0], found[1]


def _untrained(encoder: Encoder) -> Encoder:
    """An encoder with the same configuration and tokenizer, and newly initialised weights."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Bert(encoder.model.config).to(encoder.device)
    fresh = Encoder(model, encoder.tokenizer)
    fresh.max_len = encoder.max_len
    return fresh
