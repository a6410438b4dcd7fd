"""The learning rate over a run."""

from __future__ import annotations

from bertfast.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rises linearly over the first `warmup` steps, stays constant, falls linearly to 0 over the last `decay` steps.

    With warmup + decay = 1 that is BERT's schedule; with a short decay, a trapezoid (Zhai et al., 2022).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * min(1.0, max(0, config.steps - step) / max(1, config.decay_steps))
