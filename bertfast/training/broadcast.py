"""Broadcasts rank 0's state to all ranks, so that only rank 0 reads checkpoints."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from bertfast.distributed.collectives import from_rank_0
from bertfast.distributed.world import World
from bertfast.training.optimizer import Optimizer


def broadcast_state(world: World, model: nn.Module, optimizer: Optimizer, step: int) -> int:
    """Broadcasts rank 0's weights, completed steps (the result) and optimizer state to every rank."""
    if world.size == 1:
        return step
    step = from_rank_0(world, step)
    for parameter in model.parameters():
        dist.broadcast(parameter.detach(), 0)
        # torch does not notice the change, and the weight's bfloat16 copy is now stale.
        torch.autograd.graph.increment_version(parameter)
        for moment in optimizer.state.get(parameter, {}).values() if step else ():
            dist.broadcast(moment, 0)
    optimizer.count.fill_(step)
    return step
