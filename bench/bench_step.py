"""The training step, end to end (sampling included), beside the notebook's own and transformers'."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import transformers
from notebook import import_d2l, notebook_dataset, wikitext_folder
from torch import nn

from bertfast.config import BertConfig, TrainConfig
from bertfast.corpus import load_corpus
from bertfast.devices import World, choose_precision
from bertfast.model import Bert
from bertfast.sampler import Sampler
from bertfast.trainer import global_losses, make_optimizer, prepare

BATCH, MAX_LEN = 512, 64
CPU = torch.device("cpu")


def our_step(precision):
    """One call trains one step of the notebook's model."""
    corpus = load_corpus(wikitext_folder(), tokenizer="word")
    config = TrainConfig(batch_size=BATCH, max_len=MAX_LEN, precision=precision, device="cpu")
    model = Bert(BertConfig(vocab_size=corpus.vocab_size))
    world = World(0, 1, [CPU], [CPU])
    prepare(model, corpus, config, world)
    optimizer = make_optimizer(model, config)
    samplers = [Sampler(corpus, config)]
    dtype = choose_precision(config, CPU)
    steps = iter(range(1 << 30))

    def step():
        sum(losses := global_losses(model, samplers, next(steps), config, world, dtype)).backward()
        optimizer.step()
        optimizer.zero_grad()
        return [loss.item() for loss in losses]

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


PEAK = """
import resource, sys
sys.path[:0] = {paths!r}
import bench_step
step = bench_step.{make}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak_megabytes(make, paths):
    """What three steps add to the process's peak memory, in a process of its own."""
    code = PEAK.format(make=make, paths=[str(path) for path in paths])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def test_peak_memory(benchmark, request, tables):
    paths = [request.path.parent, request.path.parent.parent / "tests"]
    peaks = {make: peak_megabytes(make, paths) for make in ("our_step('fp32')", "our_step('auto')", "notebook_step()")}
    benchmark.extra_info.update({f"{make} (MB)": peak for make, peak in peaks.items()})
    benchmark.pedantic(lambda: None)
    tables.append(
        ["peak memory that training adds, notebook's size, batch 512"]
        + [f"  {make:<44} {peak:>14,.0f} MB" for make, peak in peaks.items()]
    )
