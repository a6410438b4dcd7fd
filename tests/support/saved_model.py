"""The folder of a small model with random weights, which knows a few words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from support.trained_tokenizer import train

from bertfast.config import BertConfig, CorpusConfig
from bertfast.hub.transformers import save_model
from bertfast.model import Bert

WORDS = "a crane is flying driver came he just left".split()  # noqa: SIM905
MAX_LEN = 40


def save(
    folder: Path,
    tokenizer: str = "wordpiece",
    max_len: int = MAX_LEN,
    unused: int = 0,
    words: Sequence[str] = WORDS,
    type_vocab_size: int = 2,
) -> Path:
    """`unused`: by how many the model's vocabulary exceeds the tokenizer's."""
    trained = train(tokenizer, [" ".join(words)], CorpusConfig(min_freq=1))
    torch.manual_seed(0)
    sizes = {"vocab_size": trained.vocab_size + unused, "max_position_embeddings": max_len}
    model = Bert(BertConfig(**sizes, type_vocab_size=type_vocab_size, initializer_range=0.2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, folder)
    trained.save(folder, max_len)
    return folder
