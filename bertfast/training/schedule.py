"""The learning rates over a run."""

from __future__ import annotations

from bertfast.config import TrainConfig


def learning_rates(step: int, config: TrainConfig) -> tuple[float, float]:
    """AdamW's rate for the masked-LM head, and for all others: 0 in the first `config.head_steps` steps."""
    rate = learning_rate(step, config)
    return rate, 0.0 if step < config.head_steps else rate


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of the parameters that learn in `step`.

    It rises linearly over the first `warmup` steps, stays constant, falls linearly to 0 over the last `decay` steps.
    With warmup + decay = 1 that is BERT's schedule; with a short decay, a trapezoid (Zhai et al., 2022). The steps in
    which only the masked-LM head learns have a schedule of the same shape of their own, with the peak `head_lr`.
    """
    alone = config.head_steps
    if step < alone:
        return _trapezoid(step, alone, config.head_lr, round(config.warmup * alone), round(config.decay * alone))
    return _trapezoid(step - alone, config.steps - alone, config.lr, config.warmup_steps, config.decay_steps)


def _trapezoid(step: int, steps: int, peak: float, rising: int, falling: int) -> float:
    if step < rising:
        return peak * (step + 1) / rising
    return peak * min(1.0, max(0, steps - step) / max(1, falling))
