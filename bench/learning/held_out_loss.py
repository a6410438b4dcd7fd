"""The masked-LM loss of a model on the standard held-out examples, which are the same for every contender.

It is computed in float32, whatever the precision of the training.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peer_steps import notebook_batch

from bertfast.data.corpus import Corpus
from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.training.evaluation import STANDARD, HeldOut, evaluate

CPU = torch.device("cpu")
_BATCH = 64


def standard_examples(held_out: Corpus) -> HeldOut:
    return HeldOut.of(held_out, STANDARD, CPU)


def bert_loss(model: Bert, examples: HeldOut) -> float:
    """What a run reports as `eval_standard_mlm_loss`."""
    world = World(0, 1, [CPU], [CPU], deterministic=False, shards=1)
    return evaluate(model, examples, 0, torch.float32, world).eval_mlm_loss


@torch.no_grad()
def notebook_loss(net: Any, examples: HeldOut) -> float:
    """The same of the notebook's model, which is another than ours, by its own forward pass."""
    net.eval()
    loss = predictions = 0.0
    for first in range(0, examples.examples, _BATCH):
        batch = examples.own.padded(first, min(_BATCH, examples.examples - first))
        tokens, segments, lengths, positions, weights, labels, _ = notebook_batch(batch)
        _, logits, _ = net(tokens, segments, lengths, positions)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        loss += (losses * weights.flatten()).sum().item()
        predictions += weights.sum().item()
    net.train()
    return loss / predictions
