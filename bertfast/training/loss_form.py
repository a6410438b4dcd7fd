"""Which form a run's masked-LM loss takes: chunked, or fused where the GPU at hand computes it faster."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertfast.config import TrainConfig
from bertfast.distributed.collectives import from_rank_0
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.world import World
from bertfast.errors import InputError
from bertfast.model import Bert
from bertfast.ops.arguments import Predictions
from bertfast.ops.fused_mlm_loss import why_not_fused
from bertfast.training.setup import Setup

CALLS, ROUNDS = 20, 5  # of each form, timed: the median round's
AGREEMENT = 0.05
"""The forms' greatest difference, norm of it over norm: a few roundings to bfloat16, and no more."""


class LossForm(NamedTuple):
    """`name` is what a checkpoint says of it; `reason` is for the run's first lines, empty where there is no choice."""

    name: str
    reason: str = ""
    warns: bool = False
    """Whether the reason is a warning."""

    @property
    def is_fused(self) -> bool:
        return self.name == "fused"


FORMS = CHUNKED, FUSED = LossForm("chunked"), LossForm("fused")


def choose_loss_form(setup: Setup, resumed: Mapping[str, Any] | None, works: bool = True) -> LossForm:
    """The form for this run; `resumed` is what the checkpoint that it resumes from says of its run.

    `works`: whether the check of the device has found nothing wrong with the fused form.

    Chunked, unless each process has one GPU that can do otherwise, and need not have the same bits elsewhere. Then
    `config.mlm_loss` says it; "auto" compares both, and times them, on a loss of a process's size. Their bits differ,
    so that a run keeps its form. Rank 0 decides for all ranks (`of_rank_0`).

    Raises InputError where the fused form is asked for and can't be had, and where it has broken the CUDA context.
    """
    model, config, world = setup.model, setup.config, setup.world
    obstacle = _why_not_fused(setup) or (None if works else "it fails on this device")
    if obstacle and config.mlm_loss == "fused":
        raise InputError(f"--mlm-loss fused: {obstacle} (or leave it out)")
    if obstacle or config.mlm_loss == "chunked" or world.rank > 0:
        return CHUNKED
    before = None if resumed is None else resumed.get("masked-LM loss")
    if before == "fused" or (before is not None and config.mlm_loss == "auto"):
        return LossForm(before, f"masked-LM loss {before}, as before")
    predictions = int(setup.sampler.plan(0, config.batch_size).num_masked.sum())
    sequences, predictions = (max(1, size // world.shards) for size in (config.batch_size, predictions))
    take = _made_up_loss(model, sequences, predictions, world.device)
    graphs = Graphs(world.device)
    expected = _computed(CHUNKED, model, take, graphs)  # before all else: an error here is not the fused form's
    try:
        with contextlib.closing(graphs):
            if not _agree(expected, _computed(FUSED, model, take, graphs)):
                return _without_fused(config, "is wrong here")
            if config.mlm_loss == "fused":
                return LossForm("fused", "masked-LM loss fused, as asked")
            chunked, fused = _milliseconds(model, take, world.device, graphs)
    except RuntimeError as error:  # a launch that is refused, or what a kernel did: native's and torch's
        failure = str(error).split("\n")[0]
    else:
        name = "fused" if fused < chunked else "chunked"
        return LossForm(name, f"masked-LM loss {name}: {chunked:.3f} ms chunked, {fused:.3f} ms fused")
    if not _works(world.device):
        raise InputError(
            f"the fused masked-LM loss left {world.device} unusable for this process ({failure}): start again with "
            "--mlm-loss chunked, and please report it"
        )
    return _without_fused(config, f"fails here ({failure})")


def _why_not_fused(setup: Setup) -> str | None:
    if obstacle := why_not_fused(setup.model.config.hidden_size, setup.dtype, setup.world.device):
        return obstacle
    if len(setup.world.local) > 1:
        return "DataParallel's replicas take chunks, give --parallel ddp"
    if setup.world.deterministic:
        return "its bits are those of one kind of GPU, give --no-deterministic"
    return None


def _without_fused(config: TrainConfig, why: str) -> LossForm:
    if config.mlm_loss == "fused":
        raise InputError(f"--mlm-loss fused: it {why}: leave it out, and please report it")
    return LossForm("chunked", f"masked-LM loss chunked, as the fused one {why}: please report it", warns=True)


def _works(device: torch.device) -> bool:
    """Whether the device still takes work of this process: after an illegal access CUDA refuses all that comes."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def of_rank_0(form: LossForm, world: World) -> LossForm:
    """Rank 0's form, on every rank; they have met."""
    return FORMS[from_rank_0(world, FORMS.index(LossForm(form.name)))]


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
    states = torch.randn(rows, model.config.hidden_size, generator=generator, dtype=torch.bfloat16, device=device)
    states.requires_grad_()
    positions = torch.arange(sequences, rows, device=device)
    labels = torch.arange(predictions, device=device) % model.config.vocab_size
    weights = torch.full((predictions,), 1 / predictions, dtype=torch.float32, device=device)

    def take() -> tuple[Tensor, ...]:
        loss = head.loss(states, Predictions(positions, labels, weights), word_weight)
        return loss.detach(), *torch.autograd.grad(loss, [states, word_weight, *head.parameters()])

    return take


def _computed(form: LossForm, model: Bert, take: Callable[[], tuple[Tensor, ...]], graphs: Graphs) -> list[Tensor]:
    """What a form gives, as float32 on the host.

    In the stream of the captures: autograd keeps with a leaf the stream that its gradient was first computed in.
    """
    found: list[Tensor] = []
    with taken(form, model):
        graphs.run(lambda: found.extend(take()))
    return [each.float().cpu() for each in found]


def _agree(expected: list[Tensor], found: list[Tensor]) -> bool:
    """Whether both are the same, but for rounding to bfloat16."""
    return all(
        bool((fused - chunked).norm() <= AGREEMENT * chunked.norm())
        for chunked, fused in zip(expected, found, strict=True)
    )


def _milliseconds(
    model: Bert, take: Callable[[], tuple[Tensor, ...]], device: torch.device, graphs: Graphs
) -> tuple[float, float]:
    """What it takes chunked, and fused: each a graph, since no host shall count; replayed in turns."""
    times: dict[LossForm, list[float]] = {form: [] for form in FORMS}
    for number in range(1 + ROUNDS):
        for form in FORMS:
            with taken(form, model):
                time = _timed(functools.partial(graphs, form, take), device)
            if number > 0:  # before, they were captured
                times[form].append(time)
    chunked, fused = (statistics.median(times[form]) for form in FORMS)
    return chunked, fused


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
