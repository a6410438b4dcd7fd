"""The features of a text in a probe: its words, and its vectors by a model, trained or with random weights."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
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
"""The seed of everything random in a probe, so that the same files always give the same figures."""

_NORMALIZER = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()


def require_scikit_learn() -> None:
    """Raises InputError if scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise InputError("a probe needs scikit-learn: pip install 'bertfast[probe]'")


def words(text: str) -> list[str]:
    """A text's words in lower case, independent of the model's vocabulary. As in BERT, each punctuation mark and each
    Chinese character is a word."""
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]


def tf_idf(longest: int) -> Any:
    """scikit-learn's vectorizer for runs of up to `longest` words, with 1 + log(count) as a run's frequency."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # here, since importing it is slow

    return TfidfVectorizer(
        tokenizer=words, token_pattern=None, lowercase=False, ngram_range=(1, longest), sublinear_tf=True
    )


def vectors(
    encoders: Iterable[tuple[str, Encoder]], texts: Sequence[str], config: EncodeConfig
) -> Iterator[tuple[str, Vectors]]:
    """Each encoder's name, and (texts, hidden): the texts' vectors as its `embed` gives them.

    An encoder is used before the next one is taken from `encoders`. Warns at the end if texts were truncated.
    """
    warning = ""
    for name, encoder in encoders:
        with progress_bar(desc="vectors", total=len(texts), unit=" texts", leave=False) as bar:
            of_texts, truncated = encoder.embed_texts(texts, config, bar.update)
        if truncated:
            warning = f"{truncated} of {len(texts)} texts were {encoder.truncation(config)}"
        yield name, of_texts.numpy()
    if warning:
        logger.warning(warning)


def untrained(encoder: Encoder) -> Encoder:
    """An encoder with the same configuration and tokenizer, and newly initialised weights."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Bert(encoder.model.config).to(encoder.device)
    fresh = Encoder(model, encoder.tokenizer)
    fresh.max_len = encoder.max_len
    return fresh
