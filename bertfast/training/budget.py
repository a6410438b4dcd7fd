"""A run's length in minutes or in epochs, as a number of steps."""

from __future__ import annotations

import math
import time

import torch

from bertfast.config import TrainConfig
from bertfast.training.gradients import Shares, make_gradients
from bertfast.training.setup import Setup

_UNKNOWN = 1000  # steps of a run of unknown speed: any number whose warm-up outlasts the first few steps


def steps_of_epochs(setup: Setup) -> int:
    """The number of steps, of both lengths together, that show every example `config.epochs` times on average."""
    config = setup.config
    short = (setup.short_samplers or setup.samplers)[0].num_examples
    epochs_per_example = (1 - config.long_share) / short + config.long_share / setup.sampler.num_examples
    return max(1, round(config.epochs / epochs_per_example / config.batch_size))


def provisional_steps(minutes: float, done: int = 0, seconds: float = 0.0) -> int:
    """The number of steps that a run of `minutes` has before its first estimate, after `done` of them took `seconds`.

    It gives that estimate's step its learning rate.
    """
    return max(done, round(60 * minutes * done / seconds)) if seconds else max(_UNKNOWN, 2 * done)


class Budget:
    """Estimates the number of steps with which a run ends after `config.minutes`.

    The run estimates after 1, 2, 4, ... steps and then at every 50th of its steps, from the time that the latest steps
    took. The number is settled where the run's last part begins, in which the learning rate falls or the examples are
    long. So a run ends on time even if the machine becomes slower or faster before then.
    """

    def __init__(self, config: TrainConfig, done: int, seconds: float, extra: float = 0.0) -> None:
        """A budget of which `done` steps took `seconds`. A step of long examples takes `extra` seconds more."""
        self.settled = False
        self._seconds, self._long_share = 60 * config.minutes, config.long_share
        self._is_last = False  # whether the last part had begun by the latest estimate
        self._extra = extra
        self._measured = [(done, seconds)]
        self._next = done + 1

    def is_due(self, done: int) -> bool:
        """Whether to estimate again after `done` steps."""
        return not self.settled and done >= self._next

    def estimate(self, done: int, seconds: float, evaluating: float = 0.0) -> int:
        """The number of steps of the run, of which `done` took `seconds`, `evaluating` of them with evaluations.

        Evaluations are rare, so their time is spread over all steps instead of counted where they fall.
        """
        first = self._measured[0][0]
        latest = min(5, (done - first + 1) // 2)  # steps, at least: single ones vary
        since, before = next(each for each in reversed(self._measured) if each[0] <= done - latest)
        self._measured.append((done, seconds - evaluating))
        per_step = (seconds - evaluating - before) / (done - since) + evaluating / (done - first)
        left, long_share = max(0.0, self._seconds - seconds), self._long_share
        steps = int((left + per_step * done) / (per_step + long_share * self._extra))
        # Enough that the long examples have not begun yet.
        return max(steps, done if long_share == 1 else math.ceil(done / (1 - long_share)) + 1)

    def plan(self, done: int, config: TrainConfig) -> None:
        """Plans the next estimate, if any, of a run of `config.steps`, the estimate after `done` steps.

        All ranks call it with the same numbers.
        """
        steps = config.steps
        left = min(steps - config.decay_steps, (config.first_long_step or steps) - 2) - done
        # Two estimates settle it: neither the first step, which prepares what later ones use, nor a change of speed
        # may decide it alone.
        self.settled = steps == done or (left <= 0 and self._is_last)
        self._is_last = left <= 0
        self._next = done + max(1, min(done, left // 4, steps // 50))


def extra_seconds(setup: Setup) -> float:
    """How many more seconds a step's gradients take if its examples are long. All ranks call it together."""
    if not setup.short_samplers:
        return 0.0
    seconds = []
    for step in (0, setup.config.steps - 1):
        stage = setup.stage(step)
        gradients = make_gradients(stage)
        gradients(Shares(stage, step))  # the first call prepares what later ones use
        begun = time.perf_counter()
        losses, _ = gradients(Shares(stage, step))
        torch.isfinite(losses).tolist()  # waits for the device
        seconds.append(time.perf_counter() - begun)
    setup.model.zero_grad()  # a captured step has gradients of its own
    return max(0.0, seconds[1] - seconds[0])
