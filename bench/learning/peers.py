"""Others' training of a model of the same sizes, on the same text, with the same tokenizer.

Our sampler makes their batches, so preparing them costs next to nothing.
"""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch
from learning.contender import Contender
from learning.held_out_loss import bert_loss, notebook_loss
from peer_steps import (
    notebook_batch,
    notebook_model,
    notebook_step,
    transformers_batch,
    transformers_model,
    transformers_step,
    trimmed,
)

from bertfast.config import BertConfig, SamplerConfig
from bertfast.data.corpus import Corpus
from bertfast.hub.state_dict import import_state_dict
from bertfast.model import Bert
from bertfast.presets import PRESETS
from bertfast.sampling.batch import PaddedBatch
from bertfast.sampling.sampler import Sampler
from bertfast.training.evaluation import HeldOut

NOTEBOOK, TRANSFORMERS = "the notebook's code", "transformers"
MAX_LEN = 64
WARMUP = 0.1  # of transformers' time


class Peer(Contender):
    _is_warm = False

    def train_until(self, seconds: float) -> None:
        """The first step is not counted: in it torch imports and prepares what later ones use."""
        if not self._is_warm:
            self._train_step()
            self._is_warm = True
        while self.seconds < seconds:
            begun = time.perf_counter()
            self._train_step()
            self.seconds += time.perf_counter() - begun

    @abc.abstractmethod
    def _train_step(self) -> None: ...


class Notebook(Peer):
    """The notebook's code with its own settings: fp32, batches of 512 padded to 64, dropout 0.2, Adam at 0.01.

    Raises ImportError without `d2l`.
    """

    BATCH_SIZE, DROPOUT = 512, 0.2

    def __init__(self, preset: str, corpus: Corpus) -> None:
        self.kind = self.label = NOTEBOOK
        sizes = peer_sizes(preset, corpus.vocab_size, self.DROPOUT)
        # The notebook's examples: pairs that don't fit are left out, and a wrong next sentence comes from anywhere.
        examples = SamplerConfig(objective="nsp", max_len=MAX_LEN, too_long="drop", negatives="any")
        self.settings = _settings(sizes, examples, batch_size=self.BATCH_SIZE, optimizer="Adam", lr=0.01)
        torch.manual_seed(0)
        self._net = notebook_model(sizes)
        batches = _batches(Sampler(corpus, examples), self.BATCH_SIZE)
        self._step = notebook_step(self._net, map(notebook_batch, batches))

    def _train_step(self) -> None:
        self._step()

    def loss(self, examples: HeldOut) -> float:
        return notebook_loss(self._net, examples)


class Transformers(Peer):
    """transformers' BertForPreTraining on BERT's own examples, pairs of segments that fill 64 tokens.

    Batches of 64, padded to their longest example; AdamW with weight decay 0.01, fused; gradients clipped to 1; the
    rate rises over the first tenth of the time and then falls to 0; the library's own dropout, 0.1. Raises ImportError
    without transformers.
    """

    BATCH_SIZE, DROPOUT = 64, 0.1

    def __init__(self, preset: str, minutes: float, rate: float, dtype: torch.dtype, corpus: Corpus) -> None:
        self.kind, self.label = TRANSFORMERS, f"{TRANSFORMERS}, rate {rate:g}"
        self._sizes = peer_sizes(preset, corpus.vocab_size, self.DROPOUT)
        examples = SamplerConfig(objective="nsp", max_len=MAX_LEN, segments="fill")
        self.settings = _settings(
            self._sizes, examples, batch_size=self.BATCH_SIZE, optimizer="AdamW", lr=rate, precision=str(dtype)
        )
        self._rate, self._whole = rate, 60 * minutes
        torch.manual_seed(0)
        self._model = transformers_model(self._sizes)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=rate, weight_decay=0.01, fused=True)
        batches = (transformers_batch(trimmed(batch)) for batch in _batches(Sampler(corpus, examples), self.BATCH_SIZE))
        self._step = transformers_step(self._model, batches, self._optimizer, dtype, max_grad_norm=1.0)

    def _train_step(self) -> None:
        share = self.seconds / self._whole
        self._optimizer.param_groups[0]["lr"] = self._rate * min(share / WARMUP, max(0.0, 1 - share) / (1 - WARMUP))
        self._step()

    def loss(self, examples: HeldOut) -> float:
        return bert_loss(self.as_bert(), examples)

    def as_bert(self) -> Bert:
        return imported(self._model, self._sizes)


def imported(model: Any, sizes: BertConfig) -> Bert:
    """A bertfast model with the weights of transformers' BertForPreTraining."""
    bert = Bert(sizes)
    import_state_dict(bert, model.state_dict())
    bert.trained_len = MAX_LEN
    return bert


def peer_sizes(preset: str, vocab_size: int, dropout: float) -> BertConfig:
    """The preset's sizes with a peer's own dropout: the preset's belongs to our recipe."""
    sizes = BertConfig(vocab_size=vocab_size, **PRESETS[preset].model)
    return dataclasses.replace(sizes, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)


def _batches(sampler: Sampler, size: int) -> Iterator[PaddedBatch]:
    first = 0
    while True:
        yield sampler.padded(first, size)
        first += size


def _settings(sizes: BertConfig, examples: SamplerConfig, **train: Any) -> dict[str, Any]:
    return {"model": dataclasses.asdict(sizes), "train": {**dataclasses.asdict(examples), **train}}
