"""A model in training that writes checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bertfast.training import checkpoint
from bertfast.training.checkpoint import Writer
from bertfast.training.optimizer import Optimizer

RUN = {"--optimizer": "adamw", "--weight-decay": 0.0, "--layers": 2, "corpus": "f1"}


class Training:
    """A model with an optimizer, and what checkpoints say of it."""

    def __init__(self, folder: Path, keep: int = 2, width: int = 4) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
        self.optimizer = Optimizer(self.model.parameters(), torch.float32, 0.0)
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").touch()
        self.folder = folder / "checkpoints"
        self.writer = Writer(self.folder, keep, folder / "metrics.jsonl", RUN, self._state())

    def step(self) -> None:
        self.model(torch.ones(1, 3)).square().sum().backward()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self.optimizer.step(gradients, *map(torch.tensor, (0.1, 1.0, 0.0, 0.1)))

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._state().items()}

    def _state(self) -> dict[str, Tensor]:
        return checkpoint.state(self.model, self.optimizer)

    def newest(self) -> checkpoint.Checkpoint | None:
        return checkpoint.newest(self.folder)
