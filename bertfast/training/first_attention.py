"""The start of a new model whose first layer attends to neighbouring tokens.

BERT's random start lets no head look anywhere in particular. So a small model spends the first part of its training on
a plateau, where it knows no more than how frequent words are, until some head has found its neighbours. Here the heads
of the first layer have found theirs before the first step. docs/recipes.md has what this gains.

It follows mimetic initialisation (Trockman and Kolter, 2023, arXiv:2305.09828), which starts from weights in the form
that trained ones are found to have.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bertfast.model import Bert, Layer

# Multiples of it, modulo 1, spread evenly, and those of any regular choice of them do, too.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def attend_to_neighbours(model: Bert, seed: int) -> None:
    """Lets head h of the first layer attend to the token at distance -1, +1, -2, +2 ... for h = 0, 1, 2, 3 ...

    Position p gets the embedding sqrt(2) initializer_range (sin w_m p, cos w_m p), m = 0 .. hidden_size / 2 - 1, with
    frequencies w_m in (0, pi) no two of which have a common period. A head's query passes on its share of these pairs,
    and its key the same pairs, rotated by its distance d. So the score of the tokens i and j has the summand
    sum_m cos(w_m (j - i - d)), which is largest at j = i + d. What the queries and keys held before, small random
    numbers, is added. The layer's values and its output start from N(0, 1 / hidden_size): what a head finds is passed
    on at full size. All else stays.
    """
    hidden_size, heads = model.config.hidden_size, model.config.num_attention_heads
    pairs = torch.arange(hidden_size // 2)
    frequencies = math.pi * ((pairs + 0.5) * _GOLDEN_RATIO).frac()
    layer: Layer = model.layers[0]  # type: ignore[assignment]
    with torch.no_grad():
        _set_positions(model.embeddings.position.weight, frequencies, model.config.initializer_range)
        for head in range(heads):
            distance = (1 + head // 2) * (-1 if head % 2 == 0 else 1)
            rows = slice(head * hidden_size // heads, (head + 1) * hidden_size // heads)
            _look_at(distance, layer.query.weight[rows], layer.key_value.weight[rows], frequencies, pairs[head::heads])
        generator = torch.Generator().manual_seed(seed)
        for weight in (layer.key_value.weight[hidden_size:], layer.attention_output.weight):
            weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(hidden_size))


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
