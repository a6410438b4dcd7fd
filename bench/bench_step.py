"""The training step, end to end (sampling included), beside the notebook's own and transformers'."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from memory import peak_memory
from notebook import import_d2l, notebook_dataset, wikitext_folder
from torch import nn

from bertfast.config import BertConfig, TrainConfig
from bertfast.corpus import load_corpus
from bertfast.devices import choose_precision, make_world
from bertfast.gradients import clip_gradients, make_gradients
from bertfast.model import Bert
from bertfast.sampler import Sampler
from bertfast.trainer import make_optimizer, prepare

BATCH, MAX_LEN = 512, 64
CPU = torch.device("cpu")


def our_step(precision):
    """One call trains one step of the notebook's model."""
    corpus = load_corpus(wikitext_folder(), tokenizer="word")
    config = TrainConfig(batch_size=BATCH, max_len=MAX_LEN, precision=precision, device="cpu")
    model = Bert(BertConfig(vocab_size=corpus.vocab_size))
    world = make_world(config, [CPU], [CPU])
    prepare(model, corpus, config, world)
    optimizer = make_optimizer(model, config)
    gradients = make_gradients(model, [Sampler(corpus, config)], config, world, choose_precision(config, CPU))
    steps = iter(range(1 << 30))

    def step():
        losses = gradients(next(steps))
        clip_gradients(model, config.max_grad_norm)
        optimizer.step()
        return losses.tolist()

    return step


def notebook_step():
    """The notebook's model, loss and optimizer on its own batches, which are made beforehand: their loading is free."""
    d2l = import_d2l()
    data = notebook_dataset(MAX_LEN)
    batches = iter(list(torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True)) * 1000)
    net = d2l.BERTModel(len(data.vocab), num_hiddens=128, ffn_num_hiddens=256, num_heads=2, num_blks=2, dropout=0.2)
    tokens, segments, valid_lens, positions, *_ = next(batches)
    net(tokens, segments, valid_lens.reshape(-1), positions)  # gives the lazy layers their shapes
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loss = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        mlm, nsp, both = d2l._get_batch_loss_bert(net, loss, len(data.vocab), *next(batches))
        both.backward()
        optimizer.step()
        return mlm.item(), nsp.item()

    return step


def transformers_step(dtype, compiled):
    """transformers' BertForPreTraining of the same sizes on our padded batches, made beforehand."""
    corpus = load_corpus(wikitext_folder(), tokenizer="word")
    sampler = Sampler(corpus, TrainConfig(max_len=MAX_LEN))
    values = {name: getattr(BertConfig(), name) for name in BertConfig.__dataclass_fields__}
    model = transformers.BertForPreTraining(
        transformers.BertConfig(**{**values, "vocab_size": corpus.vocab_size}, attn_implementation="sdpa")
    ).train()
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    batches = []
    for number in range(8):
        batch = sampler.padded(number * BATCH, BATCH)
        labels = torch.full(batch.input_ids.shape, -100)
        weighed = batch.mlm_weights.bool()
        rows = torch.arange(BATCH).unsqueeze(1).expand_as(batch.masked_positions)[weighed]
        labels[rows, batch.masked_positions[weighed]] = batch.labels[weighed]
        batches.append(
            {
                "input_ids": batch.input_ids,
                "token_type_ids": batch.token_type_ids,
                "attention_mask": batch.attention_mask,
                "labels": labels,
                "next_sentence_label": batch.next_sentence_label,
            }
        )
    batches = iter(batches * 1000)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = run(**next(batches)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_step_at_the_notebooks_size(compare, precision):
    dtype = torch.bfloat16 if precision == "auto" else torch.float32
    compare(
        f"training step, notebook's size, batch {BATCH}, {precision}",
        our_step(precision),
        {
            "notebook (d2l), fp32": notebook_step(),
            f"transformers, {'bf16' if precision == 'auto' else 'fp32'}": transformers_step(dtype, compiled=False),
        },
        items=BATCH,
        unit="pairs",
        rounds=5,
    )


CANDIDATES = {
    "ours, fp32": lambda: our_step("fp32"),
    "ours, auto": lambda: our_step("auto"),
    "notebook (d2l), fp32": notebook_step,
}


def test_peak_memory(benchmark, tables):
    """What training takes beyond the model and its data, each candidate in a process of its own."""
    benchmark.pedantic(lambda: None)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "tests")}
    table = ["peak memory of three training steps, notebook's size, batch 512"]
    for label in CANDIDATES:
        done = subprocess.run(
            [sys.executable, __file__, label], capture_output=True, text=True, check=True, env=environment
        )
        benchmark.extra_info[f"{label} (peak MB)"] = peak = float(done.stdout)
        table.append(f"  {label:<44} {peak:>14,.0f} MB")
    tables.append(table)


if __name__ == "__main__":
    step = CANDIDATES[sys.argv[1]]()
    print(peak_memory(lambda: [step() for _ in range(3)]))
