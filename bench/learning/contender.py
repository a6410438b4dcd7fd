"""What takes part in the comparison: a model that is trained in slices, on a clock of its own."""

from __future__ import annotations

import abc
from typing import Any

from bertfast.model import Bert
from bertfast.training.evaluation import HeldOut


class Contender(abc.ABC):
    kind: str
    """What the contender shows. Those of one kind differ in their seed or their learning rate."""
    label: str
    settings: dict[str, Any]
    """What its result follows from, for the record."""
    seconds = 0.0
    """How long it has trained. Setting up, evaluations and others' slices don't count."""

    @abc.abstractmethod
    def train_until(self, seconds: float) -> None:
        """Trains until its clock shows `seconds`, and at most a step or two beyond."""

    @abc.abstractmethod
    def loss(self, examples: HeldOut) -> float:
        """Its masked-LM loss on the held-out examples, nats a prediction."""

    def as_bert(self) -> Bert | None:
        """A bertfast model with its weights; None if its model is not a BERT."""
        return None
