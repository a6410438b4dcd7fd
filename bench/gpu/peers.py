"""Others' training of the same model on the same examples. Their batches are made beforehand, so loading is free."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timing import seconds
from torch import Tensor, nn
from workloads import Workload

from bertfast.corpus import Corpus
from bertfast.sampler import PaddedBatch, Sampler

BATCHES = 8


class Peer:
    """Trains by `step`, whose losses are read at the end of a round alone."""

    def __init__(self, workload: Workload, step: Callable[[], object]) -> None:
        self._workload, self._step = workload, step

    def train(self, steps: int) -> float:
        """Seconds."""
        return steps * seconds(self._step, self._workload.train.device, steps)

    def seconds_per_step(self, number: int) -> float:
        return self.train(self._workload.peer_steps) / self._workload.peer_steps


def batches(workload: Workload, corpus: Corpus) -> list[PaddedBatch]:
    """On the device."""
    train = workload.train
    sampler = Sampler(corpus, train)
    drawn = (sampler.padded(number * train.batch_size, train.batch_size) for number in range(BATCHES))
    return [PaddedBatch(*(field.to(train.device) for field in batch)) for batch in drawn]


def notebook(workload: Workload, corpus: Corpus) -> Peer:
    """The notebook's code, PyPI's `d2l`: its model, loss and optimizer, in fp32. Raises ImportError without it."""
    from notebook import import_d2l

    d2l, sizes, device = import_d2l(), workload.model, workload.train.device
    net = d2l.BERTModel(
        sizes.vocab_size,
        num_hiddens=sizes.hidden_size,
        ffn_num_hiddens=sizes.intermediate_size,
        num_heads=sizes.num_attention_heads,
        num_blks=sizes.num_hidden_layers,
        dropout=sizes.hidden_dropout_prob,
    ).to(device)

    def theirs(batch: PaddedBatch) -> tuple[Tensor, ...]:
        lengths = batch.attention_mask.sum(1).float()
        masked = batch.masked_positions, batch.mlm_weights, batch.labels
        return batch.input_ids, batch.token_type_ids, lengths, *masked, batch.next_sentence_label

    made = [theirs(batch) for batch in batches(workload, corpus)]
    tokens, segments, lengths, positions, *_ = made[0]
    net(tokens, segments, lengths.reshape(-1), positions)  # gives the lazy layers their shapes
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loss = nn.CrossEntropyLoss()
    endless = itertools.cycle(made)

    def step() -> None:
        optimizer.zero_grad()
        mlm, nsp, both = d2l._get_batch_loss_bert(net, loss, sizes.vocab_size, *next(endless))
        both.backward()
        optimizer.step()
        mlm.item(), nsp.item()  # the notebook sums them up on the host, each step

    return Peer(workload, step)


def transformers_compiled(workload: Workload, corpus: Corpus) -> Peer:
    """transformers' BertForPreTraining at its best: SDPA, bf16, compiled. Raises ImportError without it."""
    return _transformers(workload, corpus, torch.compile)


def transformers_eager(workload: Workload, corpus: Corpus) -> Peer:
    """The same, not compiled."""
    return _transformers(workload, corpus, lambda model: model)


def _transformers(workload: Workload, corpus: Corpus, made_fast: Callable[[nn.Module], Callable[..., Any]]) -> Peer:
    import transformers

    device = workload.train.device
    config = transformers.BertConfig(**dataclasses.asdict(workload.model), attn_implementation="sdpa")
    model = transformers.BertForPreTraining(config).to(device).train()
    run = made_fast(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.train.lr, fused=True)
    endless: Iterator[dict[str, Tensor]] = itertools.cycle([_labelled(batch) for batch in batches(workload, corpus)])

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = run(**next(endless)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Peer(workload, step)


def _labelled(batch: PaddedBatch) -> dict[str, Tensor]:
    """transformers wants a label for each token, -100 where nothing is predicted."""
    weighed = batch.mlm_weights.bool()
    rows = torch.arange(len(weighed), device=weighed.device).unsqueeze(1).expand_as(weighed)[weighed]
    labels = torch.full_like(batch.input_ids, -100)
    labels[rows, batch.masked_positions[weighed]] = batch.labels[weighed]
    return {
        "input_ids": batch.input_ids,
        "token_type_ids": batch.token_type_ids,
        "attention_mask": batch.attention_mask,
        "labels": labels,
        "next_sentence_label": batch.next_sentence_label,
    }
