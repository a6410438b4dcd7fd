"""The peers' models, batches and training steps: the notebook's and transformers'."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from support.d2l_code import load_d2l
from torch import Tensor, nn

from bertfast.config import BertConfig
from bertfast.sampling.batch import PaddedBatch


def notebook_batch(batch: PaddedBatch) -> tuple[Tensor, ...]:
    """The batch in the notebook's format."""
    lengths = batch.attention_mask.sum(1).float()
    masked = batch.masked_positions, batch.mlm_weights, batch.labels
    return batch.input_ids, batch.token_type_ids, lengths, *masked, batch.next_sentence_label


def notebook_model(sizes: BertConfig, device: str = "cpu") -> Any:
    """The notebook's model. Raises ImportError without `d2l`."""
    net = (
        load_d2l()
        .BERTModel(
            sizes.vocab_size,
            num_hiddens=sizes.hidden_size,
            ffn_num_hiddens=sizes.intermediate_size,
            num_heads=sizes.num_attention_heads,
            num_blks=sizes.num_hidden_layers,
            dropout=sizes.hidden_dropout_prob,
        )
        .to(device)
    )
    ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
    net(ids, ids, torch.full((1,), 2.0, device=device), ids)  # gives the lazy layers their shapes
    return net


def notebook_step(net: Any, batches: Iterator[tuple[Tensor, ...]]) -> Callable[[], tuple[float, float]]:
    """The notebook's code: its loss and its optimizer, in fp32. Raises ImportError without `d2l`."""
    d2l = load_d2l()
    vocab_size = net.encoder.token_embedding.num_embeddings
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loss = nn.CrossEntropyLoss()

    def step() -> tuple[float, float]:
        optimizer.zero_grad()
        mlm, nsp, both = d2l._get_batch_loss_bert(net, loss, vocab_size, *next(batches))
        both.backward()
        optimizer.step()
        return mlm.item(), nsp.item()  # the notebook adds them on the host in every step

    return step


def trimmed(batch: PaddedBatch) -> PaddedBatch:
    """The batch, padded to its longest example."""
    longest = int(batch.attention_mask.sum(1).max())
    names = ("input_ids", "token_type_ids", "attention_mask")
    return batch._replace(**{name: getattr(batch, name)[:, :longest] for name in names})


def transformers_batch(batch: PaddedBatch) -> dict[str, Tensor]:
    """The batch in transformers' format: it needs a label for each token, -100 where none is predicted."""
    predicted = batch.mlm_weights.bool()
    rows = torch.arange(len(predicted), device=predicted.device).unsqueeze(1).expand_as(predicted)[predicted]
    labels = torch.full_like(batch.input_ids, -100)
    labels[rows, batch.masked_positions[predicted]] = batch.labels[predicted]
    return {
        "input_ids": batch.input_ids,
        "token_type_ids": batch.token_type_ids,
        "attention_mask": batch.attention_mask,
        "labels": labels,
        "next_sentence_label": batch.next_sentence_label,
    }


def transformers_model(sizes: BertConfig, device: str = "cpu") -> Any:
    """transformers' BertForPreTraining with SDPA, in training mode. Raises ImportError without transformers."""
    import transformers

    config = transformers.BertConfig(**dataclasses.asdict(sizes), attn_implementation="sdpa")
    return transformers.BertForPreTraining(config).to(device).train()


def transformers_step(
    model: Any,
    batches: Iterator[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype,
    compiled: bool = False,
    max_grad_norm: float = 0.0,
) -> Callable[[], Tensor]:
    """transformers' model and `optimizer`, in bfloat16 by autocast. `max_grad_norm` 0: no clipping."""
    run: Callable[..., Any] = torch.compile(model) if compiled else model

    def step() -> Tensor:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = run(**next(batches)).loss
        loss.backward()
        if max_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
