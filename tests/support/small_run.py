"""A corpus, a model and settings so small that a run of them takes a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus
from bertfast.distributed.world import World
from bertfast.model import Bert

CPU = torch.device("cpu")
ALONE = World(0, 1, [CPU], [CPU], deterministic=False, shards=1)
SHARDED = ALONE._replace(deterministic=True, shards=8)


CONFIG = TrainConfig(steps=3, batch_size=12, max_len=24, device="cpu", precision="fp32")


def made_up_text(seed: int, documents: int) -> str:
    """Documents of five sentences, of 30 words."""
    generator = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(30)]
    return "\n\n".join(
        "\n".join(" ".join(generator.choice(words, generator.integers(2, 15))) + " ." for _ in range(5))
        for _ in range(documents)
    )


def make_corpus(folder: Path) -> Corpus:
    (folder / "texts.txt").write_text(made_up_text(0, 60))
    return load_corpus(folder, cache_dir=folder / "cache")


def make_model(corpus: Corpus, **changes: Any) -> Bert:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return Bert(BertConfig(vocab_size=corpus.vocab_size, **{**sizes, **changes}))
