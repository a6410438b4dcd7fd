"""Chooses the form of a run's masked-LM loss: chunked, or fused if that is faster on this GPU."""

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
from bertfast.training.fingerprint import LOSS_FORM
from bertfast.training.setup import Setup

CALLS, ROUNDS = 20, 5  # timed for each form: the median over the rounds
AGREEMENT = 0.05
"""The largest relative difference (in norm) between the forms: a few bfloat16 rounding errors."""


class LossForm(NamedTuple):
    """`name` is stored in checkpoints; `reason` is logged at the start, and empty if there was no choice."""

    name: str
    reason: str = ""
    warns: bool = False
    """Whether the reason is a warning."""

    @property
    def is_fused(self) -> bool:
        return self.name == "fused"


FORMS = CHUNKED, FUSED = LossForm("chunked"), LossForm("fused")


def choose_loss_form(setup: Setup, resumed: Mapping[str, Any] | None, works: bool = True) -> LossForm:
    """The form for this run. `resumed` is the fingerprint in the checkpoint that it resumes from, if any.

    `works`: whether the fused form passed the device check.

    Chunked, unless each process has one GPU that supports the fused form, and the run is not deterministic. Then
    `config.mlm_loss` decides; "auto" compares and times both forms on a loss of one process's size. Their bits differ,
    so a resumed run keeps its form. Rank 0 decides for all ranks (`broadcast_form`).

    Raises InputError if the fused form is requested but not available, or if it has broken the CUDA context.
    """
    model, config, world = setup.model, setup.config, setup.world
    obstacle = _why_not_fused(setup) or (None if works else "it fails on this device")
    if obstacle and config.mlm_loss == "fused":
        raise InputError(f"--mlm-loss fused: {obstacle} (or leave it out)")
    if obstacle or config.mlm_loss == "chunked" or world.rank > 0:
        return CHUNKED
    before = None if resumed is None else resumed.get(LOSS_FORM)
    if before == "fused" or (before is not None and config.mlm_loss == "auto"):
        return LossForm(before, f"masked-LM loss {before}, as before")
    predictions = int(setup.sampler.plan(0, config.batch_size).num_masked.sum())
    sequences, predictions = (max(1, size // world.shards) for size in (config.batch_size, predictions))
    compute = _made_up_loss(model, sequences, predictions, world.device)
    graphs = Graphs(world.device)
    expected = _computed(CHUNKED, model, compute, graphs)  # outside `try`: not an error of the fused form
    try:
        with contextlib.closing(graphs):
            if not _agree(expected, _computed(FUSED, model, compute, graphs)):
                return _without_fused(config, "is wrong here")
            if config.mlm_loss == "fused":
                return LossForm("fused", "masked-LM loss fused, as asked")
            chunked, fused = _milliseconds(model, compute, world.device, graphs)
    except RuntimeError as error:  # a failed launch or a faulty kernel, from our extension or torch
        failure = str(error).split("\n")[0]
    else:
        name = "fused" if fused < chunked else "chunked"
        return LossForm(name, f"masked-LM loss {name}: {chunked:.3f} ms chunked, {fused:.3f} ms fused")
    if not _is_usable(world.device):
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


def _is_usable(device: torch.device) -> bool:
    """Whether this process can still use the device: after an illegal access every CUDA call fails."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def broadcast_form(form: LossForm, world: World) -> LossForm:
    """Rank 0's form, on every rank. Needs the process group."""
    return FUSED if from_rank_0(world, form.is_fused) else CHUNKED


@contextlib.contextmanager
def use_form(form: LossForm, model: Bert) -> Iterator[None]:
    """The model computes its loss in this form within the context."""
    model.masked_lm_head.fused = form.is_fused
    try:
        yield
    finally:
        model.masked_lm_head.fused = False


def _made_up_loss(
    model: Bert, sequences: int, predictions: int, device: torch.device
) -> Callable[[], tuple[Tensor, ...]]:
    """A function that computes a loss and its gradients on random input of these sizes."""
    head = model.masked_lm_head
    word_weight = model.embeddings.word.weight.detach().bfloat16().requires_grad_()
    generator = torch.Generator(device).manual_seed(0)
    rows = sequences + predictions
    states = torch.randn(rows, model.config.hidden_size, generator=generator, dtype=torch.bfloat16, device=device)
    states.requires_grad_()
    positions = torch.arange(sequences, rows, device=device)
    labels = torch.arange(predictions, device=device) % model.config.vocab_size
    weights = torch.full((predictions,), 1 / predictions, dtype=torch.float32, device=device)

    def compute() -> tuple[Tensor, ...]:
        loss = head.loss(states, Predictions(positions, labels, weights), word_weight)
        return loss.detach(), *torch.autograd.grad(loss, [states, word_weight, *head.parameters()])

    return compute


def _computed(form: LossForm, model: Bert, compute: Callable[[], tuple[Tensor, ...]], graphs: Graphs) -> list[Tensor]:
    """The loss and gradients in a form, as float32 on the host.

    On the capture stream: autograd binds a leaf to the stream that its gradient was first computed on.
    """
    results: list[Tensor] = []
    with use_form(form, model):
        graphs.run(lambda: results.extend(compute()))
    return [each.float().cpu() for each in results]


def _agree(chunked: list[Tensor], fused: list[Tensor]) -> bool:
    """Whether both forms' results are equal up to bfloat16 rounding."""
    return all(
        bool((one - other).norm() <= AGREEMENT * other.norm()) for one, other in zip(fused, chunked, strict=True)
    )


def _milliseconds(
    model: Bert, compute: Callable[[], tuple[Tensor, ...]], device: torch.device, graphs: Graphs
) -> tuple[float, float]:
    """Milliseconds chunked, and fused: each as a graph, to exclude the host's time; replayed in turns."""
    times: dict[LossForm, list[float]] = {form: [] for form in FORMS}
    for number in range(1 + ROUNDS):
        for form in FORMS:
            with use_form(form, model):
                time = _timed(functools.partial(graphs, form, compute), device)
            if number > 0:  # round 0 captures
                times[form].append(time)
    chunked, fused = (statistics.median(times[form]) for form in FORMS)
    return chunked, fused


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Milliseconds per call, by the device's clock."""
    with torch.cuda.device(device):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(CALLS):
            work()
        end.record()
        end.synchronize()
    return float(begin.elapsed_time(end)) / CALLS
