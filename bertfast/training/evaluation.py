"""Evaluates both objectives on held-out text, with fixed masks."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from bertfast.config import SamplerConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.tree_sum import thread_pool
from bertfast.distributed.world import World
from bertfast.log import progress_bar
from bertfast.model import Bert, head_rows
from bertfast.reporting.metrics import Evaluation
from bertfast.sampling.sampler import Sampler

_EXAMPLES = 2048  # at most: a standard error of about 1% in the accuracies
_BATCH = 64

# The settings that an evaluation shares with its run: what the model reads, but not the masking nor the seed.
SHARED = ("objective", "max_len", "segments", "negatives")


def held_out_sampler(corpus: Corpus, config: SamplerConfig, device: torch.device) -> Sampler:
    """Examples of the run's kind, masked with the default settings and seed, so that runs with other masks compare."""
    return Sampler(corpus, SamplerConfig(**{name: getattr(config, name) for name in SHARED}), device)


def evaluate(model: Bert, sampler: Sampler, step: int, dtype: torch.dtype, world: World) -> Evaluation:
    """Evaluates the model after `step` on the sampler's first examples, the same at every call.

    Losses and accuracies are means over the predictions or the pairs. Every rank calls this at the same step and
    computes every `world.size`-th batch, each on one thread. The batches' sums are then added in a fixed order, so that
    the bits of the result do not depend on the number of ranks or threads. The model's mode is restored.
    """
    count = min(_EXAMPLES, sampler.num_examples)
    firsts = range(0, count, _BATCH)
    sums = torch.zeros(len(firsts), 5, dtype=torch.float64, device=world.device)
    training = model.training
    model.eval()
    mine = range(world.rank, len(firsts), world.size)

    def batch_sums(index: int) -> Tensor:
        return _batch_sums(model, sampler, firsts[index], min(_BATCH, count - firsts[index]), dtype)

    with thread_pool(world.device, torch.get_num_threads()) or contextlib.nullcontext() as pool:
        found = map(batch_sums, mine) if pool is None else pool.map(batch_sums, mine)
        bar = progress_bar(found, "evaluating", len(mine), leave=False)
        for index, each in zip(mine, bar, strict=True):
            sums[index] = each
    model.train(training)
    if world.size > 1:
        dist.all_reduce(sums)  # each row is set on one rank, and 0 on the others
    mlm_loss, mlm_hits, predictions, nsp_loss, nsp_hits = sums.cpu().sum(0)
    mlm_loss /= predictions
    result = Evaluation(step, mlm_loss.item(), mlm_loss.exp().item(), (mlm_hits / predictions).item())
    if sampler.config.objective == "none":
        return result
    return result._replace(eval_nsp_loss=nsp_loss.item() / count, eval_nsp_accuracy=nsp_hits.item() / count)


@torch.no_grad()
def _batch_sums(model: Bert, sampler: Sampler, first: int, count: int, dtype: torch.dtype) -> Tensor:
    """(5,) float64, sums over some examples: MLM loss, hits and predictions, NSP loss and hits."""
    batch = sampler.packed(first, count)
    rows = head_rows(batch.cu_seqlens, batch.masked_positions)
    states = model.hidden_states(batch, dtype, rows=rows)
    sums = [*_loss_and_hits(model.masked_lm_logits(states[rows.masked]), batch.labels)]
    sums.append(torch.tensor(batch.labels.numel(), device=states.device))
    if batch.next_sentence_label.numel():
        sums += _loss_and_hits(model.next_sentence_logits(model.pooled(states[rows.first])), batch.next_sentence_label)
    return F.pad(torch.stack([each.double() for each in sums]), (0, 5 - len(sums)))


def _loss_and_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    return F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum()


def in_words(found: Evaluation, objective: str) -> str:
    """The evaluation as text for a log line."""
    words = (
        f"MLM loss {found.eval_mlm_loss:.3f} (perplexity {found.eval_mlm_perplexity:.4g}, "
        f"accuracy {found.eval_mlm_accuracy:.1%})"
    )
    if found.eval_nsp_loss is None:
        return words
    return f"{words}, {objective.upper()} loss {found.eval_nsp_loss:.3f} (accuracy {found.eval_nsp_accuracy:.1%})"
