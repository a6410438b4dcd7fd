"""Texts whose label is in the meaning of rare words, and models that know it, or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from support.trained_tokenizer import train_word

from bertfast.config import BertConfig, CorpusConfig
from bertfast.data.readers.labelled import Labelled
from bertfast.data.readers.scored_pairs import ScoredPairs
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.hub.transformers import save_model
from bertfast.inference.encoder import Encoder
from bertfast.model import Bert

WORDS = {"good": [f"g{i}" for i in range(300)], "bad": [f"b{i}" for i in range(300)]}
_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def labelled(count: int, seed: int) -> Labelled:
    """Texts of seven words, five of them from their label's."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(WORDS), count, p=[0.6, 0.4]).tolist()
    texts = [
        " ".join(rng.permutation([*rng.choice(WORDS[label], 5), *rng.choice(WORDS["good"] + WORDS["bad"], 2)]))
        for label in labels
    ]
    return Labelled(texts, labels)


def tokenizer() -> Tokenizer:
    return train_word([" ".join(WORDS["good"] + WORDS["bad"])], CorpusConfig(min_freq=1))


def model(knows: bool) -> Bert:
    """One of random weights; if it `knows`, in two of its dimensions each word's embedding has the word's label."""
    words = tokenizer()
    torch.manual_seed(1)
    bert = Bert(BertConfig(vocab_size=words.vocab_size, **_SIZES))
    if knows:
        with torch.no_grad():
            for sign, each in zip((1, -1), WORDS.values(), strict=True):
                ids = [words.backend.token_to_id(word) for word in each]
                bert.embeddings.word.weight[ids, 0] += sign
                bert.embeddings.word.weight[ids, 1] -= sign
    return bert


def encoder(knows: bool) -> Encoder:
    return Encoder(model(knows), tokenizer())


def save(folder: Path, knows: bool) -> Path:
    save_model(model(knows), folder)
    tokenizer().save(folder, 64)
    return folder


def write(path: Path, given: Labelled) -> Path:
    lines = (f"{text}\t{label}\n" for text, label in zip(given.texts, given.labels, strict=True))
    path.write_text("sentence\tlabel\n" + "".join(lines))
    return path


def write_pairs(path: Path, given: ScoredPairs) -> Path:
    lines = (f"{score}\t{first}\t{second}\n" for first, second, score in zip(*given, strict=True))
    path.write_text("".join(lines))
    return path
