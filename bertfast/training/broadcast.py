"""Rank 0's state, given to all ranks: so rank 0 alone reads checkpoints."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from bertfast.distributed.collectives import from_rank_0
from bertfast.distributed.world import World
from bertfast.training.adam import Adam


def broadcast_state(world: World, model: nn.Module, optimizer: Adam, step: int) -> int:
    """Gives every rank what rank 0 holds: weights, steps done (the result), then Adam's state."""
    if world.size == 1:
        return step
    step = from_rank_0(world, step)
    for parameter in model.parameters():
        dist.broadcast(parameter.detach(), 0)
        # torch does not see the change, and a copy in bfloat16 is not the weight's any more.
        torch.autograd.graph.increment_version(parameter)
        if step and parameter.requires_grad:
            state = optimizer.state[parameter]
            state["step"].fill_(step)
            dist.broadcast(state["exp_avg"], 0)
            dist.broadcast(state["exp_avg_sq"], 0)
    return step
