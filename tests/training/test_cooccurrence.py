"""Counts of pairs and what is made of them, against loops over the text and numpy in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from support.array_corpus import VOCABULARY, make_corpus, some_documents

from bertfast.training import cooccurrence
from bertfast.training.cooccurrence import Cooccurrence

Pieces = list[list[int]]


def joined(documents: list[list[list[int]]]) -> Pieces:
    return [[token for sentence in document for token in sentence] for document in documents]


def expected(pieces: Pieces, frequent: list[int], distance: int) -> Any:
    counts = np.zeros((VOCABULARY, len(frequent)))
    for piece in pieces:
        for at, token in enumerate(piece):
            if 0 <= at + distance < len(piece) and piece[at + distance] in frequent:
                counts[token, frequent.index(piece[at + distance])] += 1
    shares = counts / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(shares / (shares.sum(1, keepdims=True) * shares.sum(0)))
    return np.nan_to_num(found, nan=0.0, neginf=0.0).clip(0)


def most_frequent(corpus: Any, number: int) -> list[int]:
    return sorted(range(VOCABULARY), key=lambda token: -corpus.token_counts[token])[:number]


@pytest.mark.parametrize("distance", [-3, -1, 1, 2])
@pytest.mark.parametrize(("limit", "contexts"), [(None, VOCABULARY), ("_MOST_CONTEXTS", 7), ("_MOST_COUNTS", 9)])
def test_associations(monkeypatch: pytest.MonkeyPatch, distance: int, limit: str | None, contexts: int) -> None:
    if limit is not None:
        monkeypatch.setattr(cooccurrence, limit, contexts * (VOCABULARY if limit == "_MOST_COUNTS" else 1))
    documents = [*some_documents(3), [[5]], [[6], [7]]]
    corpus: Any = make_corpus(documents, VOCABULARY)
    wanted = expected(joined(documents), most_frequent(corpus, contexts), distance)
    torch.testing.assert_close(Cooccurrence(corpus).association(distance), torch.from_numpy(wanted).float())


def test_a_large_text_is_read_in_pieces_from_all_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "_CHUNK", 16)
    documents = some_documents(4)
    corpus: Any = make_corpus(documents, VOCABULARY)
    monkeypatch.setattr(cooccurrence, "MOST_TOKENS", corpus.num_tokens // 3)
    pieces, at = [], 0
    step = 16 * 4  # a third, rounded up to a fourth part
    for document in joined(documents):
        for _, piece in itertools.groupby(range(at, at + len(document)), lambda token: token // 16):
            places = list(piece)
            if places[0] // 16 * 16 % step == 0:
                pieces.append([document[place - at] for place in places])
        at += len(document)
    wanted = expected(pieces, most_frequent(corpus, VOCABULARY), 1)
    torch.testing.assert_close(Cooccurrence(corpus).association(1), torch.from_numpy(wanted).float())


def test_vectors_are_singular_vectors() -> None:
    corpus: Any = make_corpus(some_documents(5), VOCABULARY)
    near = Cooccurrence(corpus)
    beside = torch.cat([near.association(-1), near.association(1)], 1).double().numpy()
    left = np.linalg.svd(beside)[0][:, :8]
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    vectors = near.vectors(8)
    torch.testing.assert_close(vectors @ vectors.T, torch.from_numpy(left @ left.T).float(), atol=1e-3, rtol=1e-3)


def test_maps_are_least_squares() -> None:
    corpus: Any = make_corpus(some_documents(6), VOCABULARY)
    near = Cooccurrence(corpus)
    vectors = near.vectors(8)
    inverse = np.linalg.pinv(vectors.double().numpy())
    order = most_frequent(corpus, VOCABULARY)
    near_inverse = np.linalg.pinv(vectors[order].double().numpy())
    wanted = inverse @ near.association(2).double().numpy() @ near_inverse.T
    torch.testing.assert_close(next(near.maps(vectors, [2])), torch.from_numpy(wanted).float(), atol=5e-3, rtol=5e-3)


def test_more_dimensions_than_the_text_fills() -> None:
    corpus: Any = make_corpus([[[1, 2, 3, 1, 2, 3]], [[2, 1]]], VOCABULARY)
    near = Cooccurrence(corpus)
    vectors = near.vectors(64)
    lengths = vectors.norm(dim=1)
    torch.testing.assert_close(lengths[1:4], torch.ones(3))
    assert not lengths[0] and not lengths[4:].any(), "tokens without neighbours"
    assert vectors.any(0).sum() <= 3
    assert next(near.maps(vectors, [1])).isfinite().all()


def test_a_text_without_pairs() -> None:
    corpus: Any = make_corpus([[[1]], [[2]]], VOCABULARY)
    near = Cooccurrence(corpus)
    assert not near.association(1).any()
    assert not near.vectors(4).any()
    assert not next(near.maps(near.vectors(4), [1])).any()
