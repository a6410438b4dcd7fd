"""What a run disables by the verdict on its device: the kernels of ops, whose twins it uses instead, and more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from bertfast import ops
from bertfast.distributed.collectives import from_rank_0
from bertfast.distributed.devices import OLDEST_CAPABILITY
from bertfast.distributed.world import World
from bertfast.errors import InputError
from bertfast.training.device_check.job import ALL_REDUCE, FUSED, REPLAY, SAMPLER
from bertfast.training.device_check.verdict import cached, make

FAILURES = (*ops.PARTS, SAMPLER, FUSED, REPLAY, ALL_REDUCE)

_INSTEAD = {
    SAMPLER: "batches are made on the host, and steps run without a CUDA graph",
    FUSED: "the masked-LM loss is computed in chunks",
    REPLAY: "steps run without a CUDA graph",
    ALL_REDUCE: "steps run without a CUDA graph",
}


class Choice(NamedTuple):
    """What a run disables."""

    failures: tuple[str, ...] = ()
    """A subset of `FAILURES`."""
    warnings: tuple[str, ...] = ()

    @property
    def twins(self) -> tuple[str, ...]:
        """The ops that are computed in plain torch."""
        return ops.with_dependents(set(self.failures).intersection(ops.PARTS))

    @property
    def fused(self) -> bool:
        """Whether the masked-LM loss may be fused."""
        return FUSED not in self.failures

    def without(self, twins: Iterable[str]) -> Choice:
        """A choice that also disables the kernels of `twins`, the ops that a resumed run computes in plain torch."""
        more = [op for op in twins if op in ops.PARTS and op not in self.twins]
        warnings = (f"{op} is computed in plain torch: as the run that is resumed did" for op in more)
        return Choice((*self.failures, *more), (*self.warnings, *warnings))

    def world(self, world: World, requested: bool | None) -> World:
        """`world`, uncaptured if replays fail or batches are made on the host.

        Raises InputError if the user has `requested` a CUDA graph.
        """
        broken = [each for each in (SAMPLER, REPLAY, ALL_REDUCE) if each in self.failures]
        if not (broken and world.captured):
            return world
        if requested:
            raise InputError(f"--cuda-graph: the {broken[0]} fails on this device, leave it out")
        return world._replace(captured=False)


def choose(device: torch.device, devices: int, check: bool) -> Choice:
    """What to disable on one of `devices` of a kind: nothing on a CPU, or on a supported GPU without `check`."""
    if device.type == "cpu":
        return Choice()
    if (capability := torch.cuda.get_device_capability(device)) < OLDEST_CAPABILITY:
        name, needed = torch.cuda.get_device_name(device), ".".join(map(str, OLDEST_CAPABILITY))
        return Choice(
            FAILURES,
            (
                f"{name} (compute capability {'.'.join(map(str, capability))}) is older than the kernels, which need "
                f"{needed}: all is computed in plain torch, and batches are made on the host",
            ),
        )
    if not check:
        return Choice()
    on_this_host = min(devices, torch.cuda.device_count())
    verdict = cached(device, on_this_host) or make(device, on_this_host)
    failures = verdict.failures
    unknown = [
        f"{each.check} was not checked: {each.said}" for each in verdict.outcomes if each.status == "not checked"
    ]
    return Choice(tuple(failures), (*(_warning(check, message) for check, message in failures.items()), *unknown[:1]))


def _warning(check: str, message: str) -> str:
    instead = _INSTEAD.get(check, "it is computed in plain torch")
    return f"{check} fails on this device ({message}): {instead}; please report it (python -m bertfast.check --json)"


def broadcast_choice(choice: Choice, world: World) -> Choice:
    """Rank 0's choice, on every rank. Needs the process group."""
    bits = from_rank_0(world, sum(1 << FAILURES.index(each) for each in choice.failures))
    return choice._replace(failures=tuple(each for number, each in enumerate(FAILURES) if bits >> number & 1))
