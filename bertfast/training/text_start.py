"""The start of a new model from which tokens stand side by side in its text.

From BERT's random start, a small model spends the first part of its training on a plateau, where it knows no more than
how frequent words are, until some head has found its neighbours, words have found their likes, and the two fit. All of
this can be had from counts before the first step. docs/recipes.md has what it gains.

It is mimetic initialisation (Trockman and Kolter, 2023, arXiv:2305.09828), weights in the form that trained ones are
found to have, together with word vectors by counting (Levy and Goldberg, 2014).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bertfast.data.corpus import Corpus
from bertfast.distributed.threads import one_thread
from bertfast.model import Bert, Layer, float32_on_the_cpu
from bertfast.training.cooccurrence import Cooccurrence

# Multiples of it, modulo 1, spread evenly, and those of any regular choice of them do, too.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
# The lengths of words' vectors from the text and of positions, as multiples of the length of a random vector.
_LENGTH = 4.0
# Added to the bias before the masked-LM head's GELU, which then is nearly linear. Its LayerNorm takes it off again.
_LINEAR = 2.0
# The counts of a shorter text fit only that text: a model that starts from them ends with a higher held-out loss.
LEAST_TOKENS = 2_000_000


def start_from_text(model: Bert, corpus: Corpus, seed: int) -> bool:
    """Sets the weights with which a masked token is predicted from its neighbours. Returns whether counts set them.

    Head h of the first layer attends to the token at distance d = -1, +1, -2, +2 ... for h = 0, 1, 2, 3 ... In a text
    of fewer than `LEAST_TOKENS`, what a head finds is passed on by a random map, at full size. In a larger one, counts
    set the words' vectors and the maps: see `_predict_from_counts`.

    The result depends on the corpus and the seed, not on the number of threads.
    """
    layer, counts = model.layers[0], corpus.num_tokens >= LEAST_TOKENS
    assert isinstance(layer, Layer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), one_thread(), float32_on_the_cpu():
        _attend_to_neighbours(model, layer, _LENGTH if counts else 1.0)
        if counts:
            _predict_from_counts(model, layer, corpus, generator)
        else:
            hidden_size = model.config.hidden_size
            for weight in (layer.key_value.weight[hidden_size:], layer.attention_output.weight):
                weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(hidden_size))
    return counts


def _predict_from_counts(model: Bert, layer: Layer, corpus: Corpus, generator: torch.Generator) -> None:
    """Makes a masked token's logits about the sum of its neighbours' associations with each word.

    Words get vectors by counts, turned at random so that no dimension is more important than another. The values of a
    head and its share of the output are the best map of the head's rank from the vector of the token at its distance to
    those of the words that stand at the opposite distance from it. The masked-LM head passes on what it gets. Vectors
    and the masked-LM head's weights are added to the random ones that are there. All other weights stay.
    """
    hidden_size, heads = model.config.hidden_size, model.config.num_attention_heads
    near = Cooccurrence(corpus)
    turn = torch.linalg.qr(torch.randn(hidden_size, hidden_size, generator=generator))[0]
    words = near.vectors(hidden_size) @ turn
    length = _LENGTH * model.config.initializer_range * math.sqrt(hidden_size)
    _add(model.embeddings.word.weight[: len(words)], length * words)
    values, outputs = layer.key_value.weight[hidden_size:].chunk(heads), layer.attention_output.weight.chunk(heads, 1)
    maps = near.maps(words, map(_distance, range(heads)))
    for value, output, best in zip(values, outputs, maps, strict=True):
        left, _, right = torch.linalg.svd(best)
        value.copy_(right[: len(value)])
        output.copy_(left[:, : len(value)])
    transform = model.masked_lm_head.transform
    _add(transform.weight, torch.eye(hidden_size))
    _add(transform.bias, torch.full((hidden_size,), _LINEAR))


def _add(weight: Tensor, summand: Tensor) -> None:
    weight += summand.to(weight.device)


def _distance(head: int) -> int:
    return (1 + head // 2) * (-1 if head % 2 == 0 else 1)


def _attend_to_neighbours(model: Bert, layer: Layer, length: float) -> None:
    """Lets head h attend to the token at its distance. Positions get `length` times the length of a random vector.

    Position p gets the embedding a (sin w_m p, cos w_m p), m = 0 .. hidden_size / 2 - 1, with frequencies w_m in
    (0, pi) no two of which have a common period, and the a that gives it its length. A head's query passes on its share
    of these pairs, and its key the same pairs, rotated by its distance d. So the score of the tokens i and j has the
    summand sum_m cos(w_m (j - i - d)), which is largest at j = i + d.
    """
    hidden_size, heads = model.config.hidden_size, model.config.num_attention_heads
    pairs = torch.arange(hidden_size // 2)
    frequencies = math.pi * ((pairs + 0.5) * _GOLDEN_RATIO).frac()
    _set_positions(model.embeddings.position.weight, frequencies, length * model.config.initializer_range)
    query, key = torch.zeros(2, hidden_size, hidden_size)
    for head, (queries, keys) in enumerate(zip(query.chunk(heads), key.chunk(heads), strict=True)):
        _look_at(_distance(head), queries, keys, frequencies, pairs[head::heads])
    _add(layer.query.weight, query)
    _add(layer.key_value.weight[:hidden_size], key)


def _set_positions(table: Tensor, frequencies: Tensor, std: float) -> None:
    """Sets the table, (positions, hidden size), but for the last column of an odd number."""
    angles = torch.arange(len(table))[:, None] * frequencies
    for column, wave in enumerate((angles.sin(), angles.cos())):
        table[:, column : 2 * len(frequencies) : 2] = math.sqrt(2) * std * wave


def _look_at(distance: int, query: Tensor, key: Tensor, frequencies: Tensor, pairs: Tensor) -> None:
    """Adds to a head's weights, (head size, hidden size) each, what lets it attend to the token at `distance`."""
    for row, pair in zip(range(0, len(query) - 1, 2), pairs.tolist(), strict=False):
        angle = float(frequencies[pair]) * distance
        sine, cosine = row, row + 1
        query[sine, 2 * pair] += 1
        query[cosine, 2 * pair + 1] += 1
        # The key of p is the query of p - distance: sin(a - b) = sin a cos b - cos a sin b, and so on.
        key[sine, 2 * pair] += math.cos(angle)
        key[sine, 2 * pair + 1] -= math.sin(angle)
        key[cosine, 2 * pair + 1] += math.cos(angle)
        key[cosine, 2 * pair] += math.sin(angle)
