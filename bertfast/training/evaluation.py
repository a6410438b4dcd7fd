"""Evaluates both objectives on held-out text, with fixed masks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from bertfast.config import SamplerConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.threads import map_on_cores
from bertfast.distributed.world import World
from bertfast.log import progress_bar
from bertfast.model import Bert, head_rows
from bertfast.reporting.metrics import Evaluation
from bertfast.sampling.sampler import Sampler

_EXAMPLES = 1024  # of each kind, at most: a standard error of about 1.5% in the accuracies
_BATCH = 64

_SHARE = 0.02  # of a run's time that all evaluations before the last take together
_FORWARD = 1 / 3  # of a training step's time that its forward pass takes

# The settings that an evaluation shares with its run: what an example is, but neither its masks nor the seed.
SHARED = ("objective", "max_len", "segments", "negatives")

# The examples that compare runs of any objective and length: short enough for all of them, and without sentence pairs.
STANDARD = SamplerConfig(objective="none", segments="fill", max_len=64)


class HeldOut(NamedTuple):
    """The examples of a held-out text that evaluate a model."""

    own: Sampler
    """Examples of the run's kind, but masked with the default settings and seed, so that other masks compare."""
    standard: Sampler | None
    """Examples that are the same for every run; `own` itself if it is of that kind. None for a run of shorter examples,
    which leaves the positions that these need untrained."""
    examples: int
    """The number of examples of each kind, counted from the first."""

    @classmethod
    def of(cls, corpus: Corpus, config: SamplerConfig, device: torch.device) -> HeldOut:
        own = Sampler(corpus, SamplerConfig(**{name: getattr(config, name) for name in SHARED}), device)
        standard = None
        if (config.objective, config.fills_segments, config.max_len) == ("none", True, STANDARD.max_len):
            standard = own
        elif config.max_len >= STANDARD.max_len:
            standard = Sampler(corpus, STANDARD, device)
        return cls(own, standard, min(_EXAMPLES, own.num_examples))

    @property
    def samplers(self) -> list[Sampler]:
        return [self.own] if self.standard in (None, self.own) else [self.own, self.standard]

    def make_on_host(self) -> None:
        for sampler in self.samplers:
            sampler.make_on_host()

    def due(self, step: int, config: TrainConfig) -> HeldOut | None:
        """What to evaluate on after `step`, if anything.

        After the last step: all examples. After each earlier tenth of the run: as many as fit into 2% of a tenth's
        time, or none if that is less than a batch. That time is not measured but computed from the numbers of examples
        and tokens, so evaluations are the same on every machine and in a resumed run.
        """
        if step + 1 == config.steps:
            return self
        if (step + 1) * 10 // config.steps == step * 10 // config.steps:
            return None
        examples = _SHARE * config.steps * config.batch_size / 10 / _FORWARD  # of the run's kind
        batches = int(examples / self._cost()) // _BATCH
        return self._replace(examples=min(self.examples, batches * _BATCH)) if batches else None

    def _cost(self) -> float:
        """The cost of one example of each kind, by their tokens, in units of an example of the run's kind."""
        lengths = [sampler.plan(0, self.examples).lengths.double().mean().item() for sampler in self.samplers]
        return sum(lengths) / lengths[0]


def evaluate(model: Bert, held_out: HeldOut, step: int, dtype: torch.dtype, world: World) -> Evaluation:
    """Evaluates the model after `step` (0-based).

    Losses and accuracies are means over the predictions or the pairs. Every rank calls this at the same step and
    computes every `world.size`-th batch, each on one thread. The batches' sums are then added in a fixed order, so that
    the bits of the result do not depend on the number of ranks or threads. The model's mode is restored.
    """
    counts = [min(held_out.examples, sampler.num_examples) for sampler in held_out.samplers]
    batches = [
        (sampler, first, min(_BATCH, count - first))
        for sampler, count in zip(held_out.samplers, counts, strict=True)
        for first in range(0, count, _BATCH)
    ]
    sums = torch.zeros(len(batches), 5, dtype=torch.float64, device=world.device)
    training = model.training
    model.eval()
    mine = range(world.rank, len(batches), world.size)

    def batch_sums(index: int) -> Tensor:
        return _batch_sums(model, *batches[index], dtype)

    with map_on_cores(world.device) as compute:
        bar = progress_bar(compute(batch_sums, mine), "evaluating", len(mine), leave=False)
        for index, row in zip(mine, bar, strict=True):
            sums[index] = row
    model.train(training)
    if world.size > 1:
        dist.all_reduce(sums)  # each row is set on one rank, and 0 on the others
    own, *others = (rows.sum(0) for rows in sums.cpu().split([math.ceil(count / _BATCH) for count in counts]))
    mlm_loss, mlm_hits, predictions, nsp_loss, nsp_hits = own
    mlm_loss /= predictions
    result = Evaluation(
        step, mlm_loss.item(), mlm_loss.exp().item(), (mlm_hits / predictions).item(), eval_examples=counts[0]
    )
    if held_out.standard is held_out.own:
        result = result._replace(eval_standard_mlm_loss=result.eval_mlm_loss)
    for standard in others:
        result = result._replace(eval_standard_mlm_loss=(standard[0] / standard[2]).item())
    if held_out.own.config.objective == "none":
        return result
    return result._replace(eval_nsp_loss=nsp_loss.item() / counts[0], eval_nsp_accuracy=nsp_hits.item() / counts[0])


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


def in_words(result: Evaluation, objective: str) -> str:
    """The evaluation as text for a log line."""
    words = (
        f"MLM loss {result.eval_mlm_loss:.3f} (perplexity {result.eval_mlm_perplexity:.4g}, "
        f"accuracy {result.eval_mlm_accuracy:.1%})"
    )
    if result.eval_nsp_loss is not None:
        words += f", {objective.upper()} loss {result.eval_nsp_loss:.3f} (accuracy {result.eval_nsp_accuracy:.1%})"
    if result.eval_standard_mlm_loss not in (None, result.eval_mlm_loss):  # equal: the run's own examples are these
        words += f"; on the standard examples: MLM loss {result.eval_standard_mlm_loss:.3f}"
    return words
