"""Models with random weights, and random batches for them."""

from __future__ import annotations

import torch

from bertfast.config import BertConfig
from bertfast.model import Bert
from bertfast.sampling.batch import PackedBatch

LENGTHS = [7, 31, 1, 20, 64]


def make_config(**changes):
    sizes = {
        "vocab_size": 251,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 80,
        "max_position_embeddings": 70,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.2,
    }
    return BertConfig(**{**sizes, **changes})


def randomised(config, seed=0):
    torch.manual_seed(seed)
    model = Bert(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_batch(config, seed=1, predictions_per_sequence=4):
    """The same sequences packed, and padded as transformers takes them."""
    generator = torch.Generator().manual_seed(seed)
    # No id 0: transformers cuts the gradient of the padding's embedding, which here never occurs in text.
    ids = [torch.randint(1, config.vocab_size, (n,), generator=generator) for n in LENGTHS]
    types = [(torch.arange(n) >= n // 2).long() for n in LENGTHS]
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    padded = {
        "input_ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "token_type_ids": torch.nn.utils.rnn.pad_sequence(types, batch_first=True),
        "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in LENGTHS], batch_first=True),
    }
    masked, counts = [], []
    for start, n in zip(cu_seqlens.tolist(), LENGTHS, strict=False):
        count = min(predictions_per_sequence, n - 1)
        counts.append(count)
        masked.append(start + 1 + torch.randperm(n - 1, generator=generator)[:count].sort().values)
    masked = torch.cat(masked)
    labels = torch.randint(config.vocab_size, masked.shape, generator=generator)
    next_sentence_label = torch.randint(2, (len(LENGTHS),), generator=generator)
    batch = PackedBatch(
        input_ids=torch.cat(ids),
        token_type_ids=torch.cat(types),
        position_ids=torch.cat([torch.arange(n) for n in LENGTHS]),
        cu_seqlens=cu_seqlens,
        masked_positions=masked,
        cu_masked=torch.tensor([0, *counts]).cumsum(0).int(),
        labels=labels,
        next_sentence_label=next_sentence_label,
        row_keys=torch.arange(sum(LENGTHS)),
        max_seqlen=max(LENGTHS),
    )
    return batch, padded
