"""The models to train, the notebook's, BERT-base and BERT-large, on a generated corpus."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from bertfast.config import BertConfig, TrainConfig
from bertfast.presets import PRESETS


class Workload(NamedTuple):
    """A model, its training settings, and how many steps to time."""

    model: BertConfig
    train: TrainConfig
    sentences_per_document: float
    """On average: as in a paragraph, or as in an article if segments are filled."""
    warm_up: int
    """Steps before those that are timed: they capture the graphs."""
    steps: int
    """Steps that are timed."""
    peer_steps: int
    """Steps that are timed for the peers, which are slower."""


# Random tokens teach nothing, and the speed does not depend on the rate: one at which no run diverges.
CAREFUL_LR = 1e-4


def _preset(name: str, vocab_size: int, **train: object) -> tuple[BertConfig, TrainConfig]:
    preset = PRESETS[name]
    return BertConfig(vocab_size=vocab_size, **preset.model), TrainConfig(gpus=1, lr=CAREFUL_LR, **train)


# WikiText-2's vocabulary, and BERT's.
WORKLOADS = {
    "notebook": Workload(*_preset("notebook", 20256, batch_size=512, max_len=64), 4.8, 100, 4000, 20),
    "base": Workload(*_preset("base", 30522, batch_size=256, max_len=128, segments="fill"), 100.0, 20, 40, 10),
    "large": Workload(*_preset("large", 30522, batch_size=128, max_len=128, segments="fill"), 100.0, 20, 20, 5),
}


def workload(name: str, device: str, tiny: bool) -> Workload:
    """`tiny`: the same, so small that a CPU trains it in seconds."""
    found = WORKLOADS[name]
    train = dataclasses.replace(found.train, device=device)
    if not tiny:
        return found._replace(train=train)
    model = dataclasses.replace(
        found.model, vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    train = dataclasses.replace(train, batch_size=8, max_len=32)
    return Workload(model, train, found.sentences_per_document, warm_up=2, steps=4, peer_steps=2)
