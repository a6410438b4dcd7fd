"""Checks beyond single ops: batches against the host's, replayed steps against eager ones, a sum over GPUs."""

from __future__ import annotations

import datetime
import itertools
import tempfile
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import spawn

from bertfast.config import SamplerConfig, TrainConfig
from bertfast.distributed.collectives import AllReduce
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.world import World
from bertfast.sampling.sampler import Sampler
from bertfast.training.device_check.differences import TOLERANCES, Difference, difference, same_bits
from bertfast.training.device_check.made_up import MadeUpCorpus, made_up_model
from bertfast.training.device_check.ops import dtypes
from bertfast.training.optimizer import make_optimizer
from bertfast.training.setup import Setup
from bertfast.training.step import BucketedSteps, EagerSteps, Measured

EXAMPLES = 300
FIRST = (1 << 33) - 7  # large, so that the upper 32 bits of numbers matter


class Uncaptured:
    """Replaces `Graphs`: runs every function uncaptured."""

    def __call__(self, key: Hashable, function: Callable[[], object]) -> None:
        function()

    def capture(self, key: Hashable, function: Callable[[], object]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def check_sampler(device: torch.device) -> Iterator[Difference]:
    """For every objective and masking: the device's batches equal the host's, bit for bit."""
    corpus = MadeUpCorpus()
    for objective, masking in itertools.product(("nsp", "sop", "none"), ("token", "whole_word", "span")):
        config = SamplerConfig(objective=objective, masking=masking, max_len=64)
        on_device, on_host = Sampler(corpus, config, device), Sampler(corpus, config)
        for way in ("packed", "padded"):
            found, expected = (getattr(each, way)(FIRST, EXAMPLES) for each in (on_device, on_host))
            yield same_bits(f"{way} batches, {objective}, {masking}", _on_host(found), _on_host(expected))


def _on_host(batch: tuple[Any, ...]) -> list[Tensor]:
    return [each.cpu() for each in batch if isinstance(each, Tensor)]


def check_replay(device: torch.device) -> Iterator[Difference]:
    """Twelve steps: compares losses and weight updates of replayed and uncaptured steps, and losses of eager steps."""
    for dtype in dtypes(device):
        graphs = Graphs(device) if device.type == "cuda" else Uncaptured()
        start, replayed, moved = _train(device, dtype, graphs)
        _, plain, expected = _train(device, dtype, Uncaptured())
        _, eager, _ = _train(device, dtype, None)
        allowed = TOLERANCES[dtype]
        yield difference(f"{dtype}, losses of replayed steps", [replayed], [plain], allowed)
        one, other = (
            torch.cat([(end - begin).flatten() for begin, end in zip(start, ends, strict=True)])
            for ends in (moved, expected)
        )
        yield Difference(f"{dtype}, weights after replayed steps", float((one - other).norm() / other.norm()), allowed)
        yield difference(f"{dtype}, losses of eager steps", [eager], [plain], TOLERANCES[torch.bfloat16])


def _train(device: torch.device, dtype: torch.dtype, graphs: Any) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Steps in `graphs`, or eager ones without. Returns the weights before, each step's losses, the weights after."""
    config = TrainConfig(steps=12, batch_size=64, max_len=64, lr=1e-3, optimizer="muon", weight_decay=0.1)
    model = made_up_model(device)
    start = [each.detach().clone() for each in model.parameters()]
    world = World(0, 1, [device], [device], deterministic=False, shards=1, captured=True)
    setup = Setup(model, [Sampler(MadeUpCorpus(), config, device)], config, world, dtype)
    optimizer = make_optimizer(setup)
    steps = EagerSteps(setup, optimizer) if graphs is None else BucketedSteps(setup, optimizer, 0, graphs)
    found: list[Measured] = []
    try:
        for step in range(config.steps):
            found += steps(step, 0.0, wait=step + 1 == config.steps)
    finally:
        steps.close()
        optimizer.close()
    losses = torch.tensor([[each.mlm_loss, each.nsp_loss] for each in found])
    return start, losses, [each.detach() for each in model.parameters()]


def check_all_reduce(device: torch.device, devices: int) -> Iterator[Difference]:
    """An all-reduce over `devices` GPUs, in a replayed graph."""
    with tempfile.TemporaryDirectory(prefix="bertfast-check-") as folder:
        spawn(_all_reduce, args=(devices, device.type, folder), nprocs=devices)
        for rank in range(devices):
            found = torch.load(Path(folder) / f"{rank}.pt")
            expected = [torch.full_like(each, devices * (devices + 1) / 2) for each in found]
            yield same_bits(f"rank {rank}", found, expected)


def _all_reduce(rank: int, size: int, kind: str, folder: str) -> None:
    """One rank's process: saves the results of three sums to `folder`."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        store=FileStore(str(Path(folder) / "store"), size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=60),
        device_id=device if kind == "cuda" else None,
    )
    mine = [torch.full((5,), rank + 1.0, device=device), torch.full((1000, 70), rank + 1.0, device=device)]
    add, graphs = AllReduce(mine), Graphs(device) if kind == "cuda" else Uncaptured()
    total, found = torch.zeros(sum(each.numel() for each in mine), device=device), []
    for _ in range(3):  # uncaptured; captured and replayed; replayed
        graphs("sum", lambda: torch.cat([each.flatten() for each in add(mine)], out=total))
        found.append(total.clone().cpu())
        total.zero_()
    torch.save(found, Path(folder) / f"{rank}.pt")
    graphs.close()
    dist.destroy_process_group()
