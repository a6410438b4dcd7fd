"""A log line that says how a run trains."""

from __future__ import annotations

from bertfast.config import BertConfig, TrainConfig


def recipe_line(model: BertConfig, config: TrainConfig) -> str:
    length = f"{config.steps:,} steps"
    if config.epochs or config.minutes:
        length = f"{config.epochs:g} epochs" if config.epochs else f"{config.minutes:g} minutes"
    rates = f"AdamW {config.lr:g}" + f", Muon {config.muon_lr:g}" * (config.optimizer == "muon")
    start = ", started from neighbouring tokens" * (config.start_from == "text")
    alone = f"; first the masked-LM head alone for {config.head_first:.0%} of the steps, at {config.head_lr:g}"
    kept = f"; the vectors that the model came with are kept, weight {config.keep_vectors:g}"
    return (
        f"{length} with batches of {config.batch_size}, {rates}, rising over {config.warmup:.0%} and falling over "
        f"{config.decay:.0%} of the steps, weight decay {config.weight_decay:g}, "
        f"dropout {model.hidden_dropout_prob:g}, objective {config.objective}, "
        f"{config.mlm_probability:.0%} of the tokens predicted{start}"
        f"{alone * (config.head_first > 0)}{kept * (config.keep_vectors > 0)}"
    )
