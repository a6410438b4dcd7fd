"""A run's length in minutes or in epochs, as a number of steps."""

from __future__ import annotations

import dataclasses
import math
import time

import torch

from bertfast.config import TrainConfig
from bertfast.training.gradients import make_gradients
from bertfast.training.setup import Setup

_UNKNOWN = 1000  # steps of a run of unknown speed: any number whose warm-up outlasts the first few steps


def steps_of_epochs(setup: Setup) -> int:
    """The steps in which `config.epochs` epochs are seen, those of both lengths together."""
    config = setup.config
    short = (setup.short_samplers or setup.samplers)[0].num_examples
    epochs_per_example = (1 - config.long_share) / short + config.long_share / setup.sampler.num_examples
    return max(1, round(config.epochs / epochs_per_example / config.batch_size))


class Budget:
    """Finds the number of steps with which a run ends after `config.minutes`.

    The number is estimated after 1, 2, 4, ... steps and from then on at every 50th of the run, from the time that the
    latest steps took. It is settled where the run's last part begins, in which the learning rate falls or the examples
    are long. So a machine that becomes slower or faster before then still ends the run on time.
    """

    def __init__(self, config: TrainConfig, done: int, seconds: float, extra: float = 0.0) -> None:
        """A budget of which `done` steps took `seconds`. A step of long examples takes `extra` seconds more."""
        self.config = dataclasses.replace(config, steps=max(_UNKNOWN, 2 * done))
        """With the latest estimate of the steps."""
        self.settled = False
        self._is_last = False  # whether the last part had begun by the latest estimate
        self._extra = extra
        self._measured = [(done, seconds)]
        self._next = done + 1

    def is_due(self, done: int) -> bool:
        """Whether to estimate again after `done` steps."""
        return not self.settled and done >= self._next

    def estimate(self, done: int, seconds: float, evaluating: float = 0.0) -> int:
        """The number of steps of the run, of which `done` took `seconds`, `evaluating` of them with evaluations.

        Those come seldom, so they are spread over all steps instead of counted where they fall.
        """
        first = self._measured[0][0]
        latest = min(5, (done - first + 1) // 2)  # steps, at least: single ones vary
        since, before = next(each for each in reversed(self._measured) if each[0] <= done - latest)
        self._measured.append((done, seconds - evaluating))
        per_step = (seconds - evaluating - before) / (done - since) + evaluating / (done - first)
        left, long_share = max(0.0, 60 * self.config.minutes - seconds), self.config.long_share
        steps = int((left + per_step * done) / (per_step + long_share * self._extra))
        # Not so few that long examples should have begun already.
        return max(steps, done if long_share == 1 else math.ceil(done / (1 - long_share)) + 1)

    def plan(self, done: int, steps: int) -> None:
        """Takes a number of steps, estimated after `done` of them. All ranks call it with the same numbers."""
        self.config = dataclasses.replace(self.config, steps=steps)
        left = min(steps - self.config.decay_steps, (self.config.first_long_step or steps) - 2) - done
        # Twice, so that neither the first step, which prepares what later ones use, nor a change of speed decides it.
        self.settled = steps == done or (left <= 0 and self._is_last)
        self._is_last = left <= 0
        self._next = done + max(1, min(done, left // 4, steps // 50))


def extra_seconds(setup: Setup) -> float:
    """How many seconds more the gradients of a step take if its examples are long. All ranks call it together."""
    if not setup.short_samplers:
        return 0.0
    seconds = []
    for step in (0, setup.config.steps - 1):
        gradients = make_gradients(setup.stage(step))
        gradients(step)  # the first call prepares what later ones use
        begun = time.perf_counter()
        losses, _ = gradients(step)
        torch.isfinite(losses).tolist()  # waits for the device
        seconds.append(time.perf_counter() - begun)
    return max(0.0, seconds[1] - seconds[0])
