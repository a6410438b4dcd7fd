"""Presets: sizes of models with the settings that suit them, and the settings for a model that is trained on."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named model with the settings that suit it: fields of BertConfig and TrainConfig, and a kind of tokenizer."""

    model: dict[str, Any]
    train: dict[str, Any]
    tokenizer: str


def _published(layers: int, hidden: int, dropout: float, **train: Any) -> Preset:
    """The sizes of Devlin et al. (2019) and Turc et al. (2019): heads of 64, feed-forward 4 times as wide."""
    model = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    return Preset(model, train, "wordpiece")


# For minutes to hours: no dropout, masked tokens only, a rate that falls over the last half. What each of these
# settings gains is in docs/recipes.md.
_TUNED: dict[str, Any] = {
    "dropout": 0.0,
    "objective": "none",
    "start_from": "text",
    "optimizer": "muon",
    "muon_lr": 0.015,
    "lr": 5e-3,
    "mlm_probability": 0.25,
    "batch_size": 256,
    "warmup": 0.05,
    "decay": 0.5,
    "minutes": 30.0,
}

# As published, for runs of many hours or days.
_AS_PUBLISHED: dict[str, Any] = {"dropout": 0.1, "minutes": 30.0}

PRESETS = {
    "notebook": Preset({}, {}, "word"),
    "tiny": _published(2, 128, **_TUNED),
    "mini": _published(4, 256, **_TUNED),
    "small": _published(4, 512, **_TUNED | {"lr": 3e-3}),
    "medium": _published(8, 512, **_TUNED | {"lr": 3e-3}),
    "base": _published(12, 768, **_AS_PUBLISHED, lr=1e-4),
    "large": _published(24, 1024, **_AS_PUBLISHED, lr=1e-4),
}

DEFAULT_PRESET = "notebook"

# With --init: a trained model learns at a low rate, so that it keeps what it knows.
CONTINUED = {"objective": "none", "lr": 1e-4, "batch_size": 64, "minutes": 30.0}

# With --init and a new masked-LM head: gradients through an untrained head would only disturb the model. And a model
# that came without such a head is there for its vectors.
NEW_HEAD = {"head_first": 0.1, "keep_vectors": 20.0}

PRESET_FIELDS = {name for preset in PRESETS.values() for name in (*preset.model, *preset.train, *NEW_HEAD, "tokenizer")}
"""Settings whose default is the preset's."""
