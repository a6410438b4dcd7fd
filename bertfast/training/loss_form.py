"""Which form a run's masked-LM loss takes: in chunks, or fused where the GPU at hand computes it faster."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertfast.config import TrainConfig
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.process_group import told_by_rank_0
from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.ops.arguments import Predictions
from bertfast.ops.fused_mlm_loss import can_fuse
from bertfast.sampling.sampler import Sampler

CALLS, ROUNDS = 20, 5  # of each form, timed: the median round's
AGREEMENT = 0.05
"""The forms' greatest difference, norm of it over norm: a few roundings to bfloat16, and no more."""


class LossForm(NamedTuple):
    """`name` is what a checkpoint says of it; `reason` is for the run's first lines, empty where there is no choice."""

    name: str
    reason: str = ""

    @property
    def is_fused(self) -> bool:
        return self.name == "fused"


FORMS = LossForm("in chunks"), LossForm("fused")


def choose_loss_form(
    model: Bert,
    sampler: Sampler,
    config: TrainConfig,
    world: World,
    dtype: torch.dtype,
    resumed: Mapping[str, Any] | None,
) -> LossForm:
    """The form for this run; `resumed` is what the checkpoint that it goes on from says of its run.

    In chunks, unless each process has one GPU that can do otherwise, and need not have the same bits elsewhere. Then
    both are compared, and timed, on a loss of a process's size. Their bits differ, so that a run keeps its form. Rank 0
    decides for all ranks (`of_rank_0`).
    """
    decides = world.rank == 0 and len(world.local) == 1 and not world.deterministic
    if not (decides and can_fuse(model.config.hidden_size, dtype, world.device)):
        return LossForm("in chunks")
    if resumed is not None and "masked-LM loss" in resumed:
        return LossForm(resumed["masked-LM loss"], f"masked-LM loss {resumed['masked-LM loss']}, as before")
    predictions = int(sampler.plan(0, config.batch_size).num_masked.sum())
    sequences, predictions = (max(1, size // world.shards) for size in (config.batch_size, predictions))
    take = _made_up_loss(model, sequences, predictions, world.device)
    if not _agree(model, take):
        return LossForm(
            "in chunks", "warning: masked-LM loss in chunks, as the fused one is wrong here: please report it"
        )
    chunks, fused = _milliseconds(model, take, world.device)
    name = "fused" if fused < chunks else "in chunks"
    return LossForm(name, f"masked-LM loss {name}: {chunks:.3f} ms in chunks, {fused:.3f} ms fused")


def of_rank_0(form: LossForm, world: World) -> LossForm:
    """Rank 0's form, on every rank; they have met."""
    return FORMS[told_by_rank_0(world, FORMS.index(LossForm(form.name)))]


@contextlib.contextmanager
def taken(form: LossForm, model: Bert) -> Iterator[None]:
    """The model's loss takes the form until the end."""
    model.masked_lm_head.fused = form.is_fused
    try:
        yield
    finally:
        model.masked_lm_head.fused = False


def _made_up_loss(
    model: Bert, sequences: int, predictions: int, device: torch.device
) -> Callable[[], tuple[Tensor, ...]]:
    """Computes a loss and its gradients, of a batch of such sizes."""
    head = model.masked_lm_head
    word_weight = model.embeddings.word.weight.detach().bfloat16().requires_grad_()
    generator = torch.Generator(device).manual_seed(0)
    rows = sequences + predictions
    states = torch.randn(rows, model.config.hidden_size, generator=generator, device=device).bfloat16().requires_grad_()
    positions = torch.arange(sequences, rows, device=device)
    labels = torch.arange(predictions, device=device) % model.config.vocab_size
    weights = torch.full((predictions,), 1 / predictions, device=device)

    def take() -> tuple[Tensor, ...]:
        loss = head.loss(states, Predictions(positions, labels, weights), word_weight)
        return loss.detach(), *torch.autograd.grad(loss, [states, word_weight, *head.parameters()])

    return take


def _agree(model: Bert, take: Callable[[], tuple[Tensor, ...]]) -> bool:
    """Whether both forms give the same, but for rounding to bfloat16."""
    found = []
    for form in FORMS:
        with taken(form, model):
            found.append(take())
    return all(
        bool((fused - chunks).float().norm() <= AGREEMENT * chunks.float().norm())
        for chunks, fused in zip(*found, strict=True)
    )


def _milliseconds(model: Bert, take: Callable[[], tuple[Tensor, ...]], device: torch.device) -> tuple[float, float]:
    """What it takes in chunks, and fused: each a graph, since no host shall count; replayed in turns."""
    graphs = Graphs(device)
    times: dict[LossForm, list[float]] = {form: [] for form in FORMS}
    for number in range(1 + ROUNDS):
        for form in FORMS:
            with taken(form, model):
                time = _timed(functools.partial(graphs, form, take), device)
            if number > 0:  # before, they were captured
                times[form].append(time)
    chunks, fused = (statistics.median(times[form]) for form in FORMS)
    return chunks, fused


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Milliseconds of a call, on the device's clock."""
    with torch.cuda.device(device):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(CALLS):
            work()
        end.record()
        end.synchronize()
    return float(begin.elapsed_time(end)) / CALLS
