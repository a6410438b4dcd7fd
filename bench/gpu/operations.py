"""The floating-point operations that a training step needs: real tokens only, nothing computed twice.

A product of (m, k) and (k, n) takes 2 m k n; everything else is negligible. With T tokens, B sequences of L_i tokens,
P predictions, hidden size H, feed-forward width I and vocabulary V, forward:

    a layer's tokens                    8 H^2 T + 4 H I T     query, key, value and output; the feed-forward network
    a layer's attention                 4 H sum L_i^2         scores, and their product with the values
    the masked-LM head                  2 H^2 P + 2 H V P
    the next-sentence head's pooler     2 H^2 B

Backward is twice that: one product for the gradient of each factor. The last layer's output is read in B + P rows only
(the first tokens and the predicted ones), so it needs only

    4 H^2 T + 4 H^2 (B + P) + 4 H I (B + P) + 4 H sum (1 + P_i) L_i
"""

from __future__ import annotations

import torch

from bertfast.config import BertConfig
from bertfast.sampling.sampler import Plan


def step_operations(model: BertConfig, plan: Plan) -> dict[str, float]:
    """`needed` operations, and `usual` ones: every layer counted in full, as in published shares of peak."""
    hidden, wide, layers = model.hidden_size, model.intermediate_size, model.num_hidden_layers
    lengths, masked = plan.lengths.double(), plan.num_masked.double()
    tokens, sequences, predictions = lengths.sum(), len(lengths), masked.sum()
    rows = sequences + predictions
    layer = (8 * hidden**2 + 4 * hidden * wide) * tokens + 4 * hidden * (lengths**2).sum()
    last = 4 * hidden**2 * (tokens + rows) + 4 * hidden * wide * rows + 4 * hidden * ((1 + masked) * lengths).sum()
    heads = 2 * hidden**2 * (predictions + sequences) + 2 * hidden * model.vocab_size * predictions
    forward = torch.stack([(layers - 1) * layer + last + heads, layers * layer + heads])
    needed, usual = (3 * forward).tolist()
    return {"needed": needed, "usual": usual}
