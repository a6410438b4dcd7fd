"""A run's stages: short examples for most steps, long ones for the last, as BERT was trained (appendix A.2)."""

from __future__ import annotations

from bertfast.training.optimizer import Optimizer
from bertfast.training.setup import Setup
from bertfast.training.step import Measured, Steps, make_steps


class StagedSteps:
    """The run's steps from `first_step` on: of the first stage, if there are two, then of the last.

    Each stage has its own samplers and, if captured, its own graphs.
    """

    def __init__(self, setup: Setup, optimizer: Optimizer, first_step: int) -> None:
        self._setup, self._optimizer = setup, optimizer
        self._steps = self._make_steps(first_step)

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        changes = step + 1 == self._setup.config.first_long_step
        measured = self._steps(step, flag, wait or changes)  # a stage that ends keeps no metrics back
        if changes:
            self._steps.close()
            self._steps = self._make_steps(step + 1)
        return measured

    def set_length(self, steps: int) -> None:
        self._setup = self._setup.with_steps(steps)
        self._steps.set_length(steps)

    def close(self) -> None:
        self._steps.close()

    def _make_steps(self, step: int) -> Steps:
        return make_steps(self._setup.stage(step), self._optimizer, step)
