"""Both objectives on held-out text, with masks that never change."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bertfast.history import Evaluation
from bertfast.model import Bert, Sequences
from bertfast.sampler import Sampler

_EXAMPLES = 2048  # at most: a standard error of about 1% in the accuracies
_BATCH = 64


@torch.no_grad()
def evaluate(model: Bert, sampler: Sampler, step: int, dtype: torch.dtype) -> Evaluation:
    """Evaluates the model, as it is after `step`, on the first examples that `sampler` gives: the same at every call.

    Its losses and accuracies are means over the predictions, and over the pairs. Leaves the model's mode as it was.
    """
    training = model.training
    model.eval()
    count = min(_EXAMPLES, sampler.num_examples)
    sums = torch.zeros(4, dtype=torch.float64)
    predictions = 0
    for first in range(0, count, _BATCH):
        batch = sampler.packed(first, min(_BATCH, count - first))
        hidden_states = model.hidden_states(Sequences.of(batch), dtype)[-1]
        logits = model.masked_lm_logits(hidden_states[batch.masked_positions]).float()
        sums[0] += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        sums[1] += (logits.argmax(1) == batch.labels).sum().item()
        predictions += batch.labels.numel()
        if batch.next_sentence_label.numel():
            first_rows = hidden_states[batch.cu_seqlens[:-1].long()]
            logits = model.next_sentence_logits(model.pooled(first_rows)).float()
            sums[2] += F.cross_entropy(logits, batch.next_sentence_label, reduction="sum").item()
            sums[3] += (logits.argmax(1) == batch.next_sentence_label).sum().item()
    model.train(training)
    mlm_loss, mlm_hits, nsp_loss, nsp_hits = sums.tolist()
    predictions = max(1, predictions)
    return Evaluation(step, mlm_loss / predictions, mlm_hits / predictions, nsp_loss / count, nsp_hits / count)
