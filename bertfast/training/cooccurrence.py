"""Which tokens stand near which in a corpus, as vectors of the tokens and as maps between these vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast.data.corpus import Corpus

# More tell little more, and would make large texts slow to start on.
MOST_TOKENS = 10_000_000
# Most of what is near a token is one of the frequent tokens. More of them change the vectors little.
_MOST_CONTEXTS = 1024
_MOST_COUNTS = 1 << 25  # of tokens times contexts, so that a large vocabulary takes no gigabytes
_CHUNK = 1 << 16  # tokens that are read in one piece
_RIDGE = 1e-4  # of the mean squared length along a dimension: for vectors that do not fill all dimensions


class Cooccurrence:
    """Counts pairs of a token, any of the vocabulary, and a context, one of its most frequent tokens.

    It reads pieces spread evenly over the corpus, at most `MOST_TOKENS` in all, and no pair reaches from one document
    into another.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._vocab_size = corpus.vocab_size
        self._tokens = _sampled(corpus)
        self._documents = np.cumsum(self._tokens < 0)
        number = min(_MOST_CONTEXTS, _MOST_COUNTS // corpus.vocab_size)
        contexts = np.argsort(-corpus.token_counts, kind="stable")[:number]
        self._contexts = torch.from_numpy(contexts)
        self._context_of = np.full(corpus.vocab_size + 1, -1)  # -1, a document's begin, is no context either
        self._context_of[contexts] = np.arange(len(contexts))

    def association(self, distance: int) -> Tensor:
        """max(0, log(p(w, c) / (p(w) p(c)))), (vocab_size, contexts), of a token w and a context c at its distance.

        The distance is negative for contexts before the token. p are shares of the pairs.
        """
        first, second = slice(None, -abs(distance)), slice(abs(distance), None)
        token, context = (first, second) if distance > 0 else (second, first)
        tokens, contexts = self._tokens[token], self._context_of[self._tokens[context]]
        counts = (self._documents[first] == self._documents[second]) & (tokens >= 0) & (contexts >= 0)
        shape = self._vocab_size, len(self._contexts)
        pairs = np.bincount(tokens[counts] * shape[1] + contexts[counts], minlength=math.prod(shape))
        joint = torch.from_numpy(pairs).float().view(shape)
        expected = joint.sum(1, keepdim=True) * (joint.sum(0) / joint.sum().clamp(min=1))
        return (joint / expected.clamp(min=torch.finfo().tiny)).log_().clamp_(min=0)

    def vectors(self, size: int) -> Tensor:
        """(vocab_size, size): vectors of length 1 of tokens that are alike if what stands beside them is.

        They are the first left singular vectors of the associations with the token before and with the token after,
        side by side (Levy and Goldberg, 2014, "Neural word embedding as implicit matrix factorization"). A token
        without neighbours has 0, and so has every token in the dimensions that the associations do not fill.
        """
        beside = torch.cat([self.association(-1), self.association(1)], 1)
        squares, right = torch.linalg.eigh(beside.T @ beside)
        used = squares > _RIDGE * squares.mean()
        left = beside @ (right[:, used] / squares[used].sqrt())[:, -size:]
        return F.normalize(F.pad(left, (0, size - left.shape[1])))

    def maps(self, vectors: Tensor, distances: Iterable[int]) -> Iterator[Tensor]:
        """For each distance, (size, size): the A for which w^T A c is nearest, by least squares, to its association.

        w and c are the rows of `vectors`, (vocab_size, size), of a token and of its context.
        """
        of_tokens, of_contexts = _pseudoinverse(vectors), _pseudoinverse(vectors[self._contexts])
        for distance in distances:
            yield of_tokens @ self.association(distance) @ of_contexts.T


def _pseudoinverse(vectors: Tensor) -> Tensor:
    """(rows, size) -> (size, rows): (V^T V)^-1 V^T, with a small multiple of the unit matrix added to V^T V."""
    gram = vectors.T @ vectors
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + torch.finfo().tiny)
    inverse: Tensor = torch.linalg.solve(gram, vectors.T)
    return inverse


def _sampled(corpus: Corpus) -> npt.NDArray[np.int64]:
    """Token ids of the corpus or of evenly spread pieces of it, with -1 where a document or a piece begins."""
    begins = corpus.sentence_offsets[corpus.document_offsets[:-1]]
    step = _CHUNK * math.ceil(corpus.num_tokens / MOST_TOKENS)
    pieces = []
    for first in range(0, corpus.num_tokens, step):
        piece = corpus.tokens[first : first + _CHUNK].astype(np.int64)
        inside = begins[np.searchsorted(begins, first + 1) : np.searchsorted(begins, first + len(piece))]
        pieces.append(np.insert(piece, [0, *(inside - first)], -1))
    return np.concatenate(pieces)
