"""What some run was."""

from __future__ import annotations

from bertfast.config import BertConfig, TrainConfig
from bertfast.reporting.run_info import RunInfo, Text

INFO = RunInfo(
    BertConfig(vocab_size=50),
    TrainConfig(steps=3, objective="sop", lr=0.25),
    Text("/corpora/a", "f1", (3, 9), ("ein Wörterbuch", "2 documents")),
    None,
)
