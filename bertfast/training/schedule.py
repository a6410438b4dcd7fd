"""The learning rate over a run."""

from __future__ import annotations

from bertfast.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rises over `warmup` steps, then falls to 0 at the end, both on a straight line, as BERT's does."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * (config.steps - step) / max(1, config.steps - config.warmup)
