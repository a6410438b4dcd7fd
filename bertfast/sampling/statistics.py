"""Statistics of a corpus and of its examples, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bertfast.config import SamplerConfig
from bertfast.data.corpus import Corpus
from bertfast.errors import InputError
from bertfast.sampling.long_sentences import MOST_UNREACHED
from bertfast.sampling.sampler import Sampler

_BAR = 50  # characters
_SENTENCES = 1 << 20  # the number whose lengths are in memory at a time
_EXAMPLES = 1 << 16  # the number, from the start of an epoch, from which padding is estimated
_FREQUENT = 10


def statistics(corpus: Corpus, config: SamplerConfig) -> Iterator[str]:
    """Lines about a corpus, and about the examples that `config` makes from it."""
    yield from corpus.description
    yield from (f"warning: {line}" for line in corpus.warnings)
    sentences, documents = corpus.num_sentences, corpus.num_documents
    yield _documents(corpus)
    yield f"{sentences - documents:,} adjacent pairs of sentences, {sentences / documents:.1f} sentences a document"
    unused = int((corpus.token_counts == 0).sum())
    yield f"{unused:,} of the vocabulary's {corpus.vocab_size:,} tokens never occur"
    most = np.argsort(-corpus.token_counts, kind="stable")[:_FREQUENT]
    shares = (
        f"{token} {corpus.token_counts[id] / corpus.num_tokens:.1%}"
        for id, token in zip(most, corpus.tokenizer.tokens(most.tolist()), strict=True)
    )
    yield f"most frequent: {'  '.join(shares)}"
    yield "tokens a sentence:"
    yield from _bars(_length_histogram(corpus.sentence_offsets))
    yield from _examples(corpus, config)


def _documents(corpus: Corpus) -> str:
    """A line about what a document is, and how long documents are."""
    sentences = np.diff(corpus.document_offsets)
    tokens = np.diff(corpus.sentence_offsets[corpus.document_offsets])
    tenth, median, most = (np.quantile(sentences, share, method="lower") for share in (0.1, 0.5, 0.9))
    return (
        f"a document is {corpus.document}; half have {median:,} sentences or fewer, a tenth {tenth:,} or fewer, "
        f"a tenth more than {most:,}; the median is {np.quantile(tokens, 0.5, method='lower'):,} tokens"
    )


def _length_histogram(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many sentences have 1, 2, 3-4, 5-8, ... tokens."""
    histogram = np.zeros(64, np.int64)
    for begin in range(0, len(offsets) - 1, _SENTENCES):
        lengths = np.diff(offsets[begin : begin + _SENTENCES + 1])
        histogram += np.bincount(np.ceil(np.log2(lengths)).astype(np.int64), minlength=64)
    return histogram[: np.flatnonzero(histogram)[-1] + 1]


def _bars(histogram: npt.NDArray[np.int64]) -> Iterator[str]:
    for power, count in enumerate(histogram.tolist()):
        first, last = (1 << power >> 1) + 1, 1 << power
        name = f"{first}-{last}" if first < last else f"{last}"
        share = count / int(histogram.sum())
        bar = "#" * round(_BAR * count / int(histogram.max()))
        yield f"  {name:>13} {count:>15,} {share:>6.1%} {bar}".rstrip()


def _examples(corpus: Corpus, config: SamplerConfig) -> Iterator[str]:
    """Lines about how long examples are, and how much padding a packed batch saves."""
    what = f"examples ({config.objective}, --max-len {config.max_len})"
    try:
        sampler = Sampler(corpus, config)
    except InputError as error:
        yield f"{what}: none ({error})"
        return
    lengths = sampler.plan(0, min(_EXAMPLES, sampler.num_examples)).lengths.double()
    full = (lengths == config.max_len).double().mean()
    yield (
        f"{what}: {sampler.num_examples:,} an epoch, of {lengths.mean():.1f} tokens on average, {full:.1%} of them "
        f"full; {1 - lengths.mean() / config.max_len:.1%} of a padded batch is padding, which training leaves out"
    )
    if lost := sampler.unreached():
        yield f"{'warning: ' * (lost > MOST_UNREACHED)}{lost:.1%} of the tokens are in no example"
    if config.fills_segments and config.objective != "none" and (share := _could_fill(corpus, config)) < 0.5:
        yield (
            f"warning: {share:.1%} of the sentences stand in documents that could fill an example: give longer "
            "documents (--documents file) or a smaller --max-len"
        )


def _could_fill(corpus: Corpus, config: SamplerConfig) -> float:
    """The share of the sentences whose document has enough tokens to fill an example with a pair."""
    tokens = np.diff(corpus.sentence_offsets[corpus.document_offsets])
    enough = tokens >= config.max_len - 3
    return float(np.diff(corpus.document_offsets)[enough].sum() / corpus.num_sentences)
