"""Others' training steps of a model, on batches made beforehand: the notebook's, and transformers'."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from support.d2l_code import load_d2l
from torch import Tensor, nn

from bertfast.config import BertConfig
from bertfast.sampling.batch import PaddedBatch


def notebook_step(
    sizes: BertConfig, batches: Iterable[tuple[Tensor, ...]], device: str = "cpu"
) -> Callable[[], tuple[float, float]]:
    """The notebook's code: its model, loss and optimizer, in fp32, on batches as its data set has them.

    Raises ImportError without `d2l`.
    """
    d2l = load_d2l()
    net = d2l.BERTModel(
        sizes.vocab_size,
        num_hiddens=sizes.hidden_size,
        ffn_num_hiddens=sizes.intermediate_size,
        num_heads=sizes.num_attention_heads,
        num_blks=sizes.num_hidden_layers,
        dropout=sizes.hidden_dropout_prob,
    ).to(device)
    endless = itertools.cycle(batches)
    tokens, segments, valid_lens, positions, *_ = next(endless)
    net(tokens, segments, valid_lens.reshape(-1), positions)  # gives the lazy layers their shapes
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loss = nn.CrossEntropyLoss()

    def step() -> tuple[float, float]:
        optimizer.zero_grad()
        mlm, nsp, both = d2l._get_batch_loss_bert(net, loss, sizes.vocab_size, *next(endless))
        both.backward()
        optimizer.step()
        return mlm.item(), nsp.item()  # the notebook sums them up on the host, each step

    return step


def transformers_step(
    sizes: BertConfig,
    batches: Iterable[PaddedBatch],
    dtype: torch.dtype,
    compiled: bool,
    lr: float,
    device: str = "cpu",
) -> Callable[[], Tensor]:
    """transformers' BertForPreTraining with SDPA; Adam, fused. Raises ImportError without transformers."""
    import transformers

    config = transformers.BertConfig(**dataclasses.asdict(sizes), attn_implementation="sdpa")
    model = transformers.BertForPreTraining(config).to(device).train()
    run: Callable[..., Any] = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    endless = itertools.cycle([_labelled(batch) for batch in batches])

    def step() -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = run(**next(endless)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


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
