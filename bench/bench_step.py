"""The training step, end to end (sampling included), compared with the notebook's and transformers'."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time

import pytest
import torch
from memory import peak_memory, peak_of_process
from peer_steps import (
    notebook_model,
    notebook_step,
    transformers_batch,
    transformers_model,
    transformers_step,
    trimmed,
)
from sizes import sized
from support.notebook import notebook_dataset, wikitext_folder
from torch.profiler import ProfilerActivity, profile, record_function

from bertfast._native import native
from bertfast.config import BertConfig, TrainConfig
from bertfast.data.load import load_corpus
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.world import make_world
from bertfast.model import Bert
from bertfast.sampling.sampler import Sampler
from bertfast.training.gradients import Shares
from bertfast.training.optimizer import make_optimizer
from bertfast.training.setup import Setup, prepare
from bertfast.training.step import make_steps

CPU = torch.device("cpu")
# Steps until memory fits and, where products are oneDNN's, it has compiled a program for nearly every size that occurs
# (bertfast/sampling/padding.py).
WARMUP = sized(8, smoke=1)
# The notebook's settings; the model's vocabulary is the text's.
NOTEBOOK = TrainConfig(batch_size=sized(512, smoke=16), max_len=64, device="cpu")
PRECISIONS = sized(["fp32", "auto"], smoke=["auto"])
# BERT-mini's sizes, on filled segments, where packing saves little padding.
MINI = TrainConfig(batch_size=sized(128, smoke=16), max_len=128, segments="fill", device="cpu")
MINI_MODEL = BertConfig(
    vocab_size=30522, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
)


def prepared(config, model_config=None, world=None):
    """The model, its sampler and its world, as `train` makes them."""
    corpus = load_corpus(wikitext_folder(), tokenizer="word")
    model = Bert(model_config or BertConfig(vocab_size=corpus.vocab_size))
    world = world or make_world(config, [CPU], [CPU])
    prepare(model, corpus, config, world)
    return model, Sampler(corpus, config), world


def our_step(config, model_config=None, world=None):
    """One call trains one step, sampling included."""
    model, sampler, world = prepared(config, model_config, world)
    dtype = choose_precision(config, CPU)
    setup = Setup(model, [sampler], config, world, dtype)
    take_step = make_steps(setup, make_optimizer(setup), first_step=0)
    numbers = itertools.cycle(range(config.steps))
    return lambda: take_step(next(numbers), 0.0, wait=True)


def notebook():
    """The notebook's model, loss and optimizer on its own batches, made beforehand, so loading takes no time."""
    data = notebook_dataset(NOTEBOOK.max_len)
    batches = list(torch.utils.data.DataLoader(data, NOTEBOOK.batch_size, shuffle=True, drop_last=True))
    return notebook_step(notebook_model(BertConfig(vocab_size=len(data.vocab))), itertools.cycle(batches))


def theirs(config, dtype, compiled, model_config=None, batches=WARMUP):
    """transformers' BertForPreTraining of the same sizes. It gets so many batches in turn, made beforehand and trimmed:
    no more than warm it up, since each may have a length of its own.
    """
    corpus = load_corpus(wikitext_folder(), tokenizer="word")
    sampler = Sampler(corpus, config)
    firsts = range(0, batches * config.batch_size, config.batch_size)
    made = [transformers_batch(trimmed(sampler.padded(first, config.batch_size))) for first in firsts]
    model = transformers_model(model_config or BertConfig(vocab_size=corpus.vocab_size))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    return transformers_step(model, itertools.cycle(made), optimizer, dtype, compiled)


def transformers_at_its_best(config, request, dtype=torch.bfloat16, model_config=None):
    """Compiled, as its batches have one shape; not compiled in a smoke run, since compiling takes minutes."""
    compiled = not request.config.getoption("benchmark_disable")
    label = f"transformers, {'bf16' if dtype == torch.bfloat16 else 'fp32'}" + ", compiled" * compiled
    return {label: theirs(config, dtype, compiled, model_config)}


@pytest.mark.parametrize("precision, bar, bar_with_amx", [("fp32", 4.0, 6.5), ("auto", 7.5, 14.0)])
def test_step_at_the_notebooks_size(compare, request, precision, bar, bar_with_amx):
    config = dataclasses.replace(NOTEBOOK, precision=precision)
    compare(
        f"training step, notebook's size, batch {config.batch_size}, {precision}",
        our_step(config),
        {
            "notebook (d2l), fp32": notebook(),
            **(transformers_at_its_best(config, request) if precision == "auto" else {}),
        },
        items=config.batch_size,
        unit="pairs",
        rounds=5,
        warmup=WARMUP // 2,  # the peers' batches have one shape
        bars={"notebook (d2l), fp32": bar_with_amx if native.isa() == "amx" else bar},
    )


@pytest.mark.long
def test_step_at_the_notebooks_size_beside_transformers_in_fp32(compare, request):
    config = dataclasses.replace(NOTEBOOK, precision="fp32")
    compare(
        f"training step, notebook's size, batch {config.batch_size}, fp32",
        our_step(config),
        transformers_at_its_best(config, request, torch.float32),
        items=config.batch_size,
        unit="pairs",
        rounds=5,
        warmup=WARMUP // 2,
    )


@pytest.mark.long
def test_step_of_bert_mini(compare, request):
    compare(
        "training step, 4 layers of 256, 128 filled pairs of up to 128 tokens, vocabulary 30,522, auto",
        our_step(MINI, MINI_MODEL),
        transformers_at_its_best(MINI, request, model_config=MINI_MODEL),
        items=MINI.batch_size,
        unit="pairs",
        rounds=7,
        warmup=WARMUP,
    )


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
def test_cores(compare, precision):
    """The same steps on one thread, and on as many threads as there are cores.

    A call takes several steps, as in training: cores that were idle are slow in the first one.
    """
    config = dataclasses.replace(NOTEBOOK, precision=precision)
    cores, steps = torch.get_num_threads(), 4

    def with_threads(count):
        torch.set_num_threads(count)
        step = our_step(config)

        def run():
            torch.set_num_threads(count)
            for _ in range(steps):
                step()

        return run

    one, all_of_them = with_threads(1), with_threads(cores)
    name = f"training step on {cores} cores, notebook's size, {precision}"
    items, warmup = steps * config.batch_size, WARMUP // steps
    compare(name, all_of_them, {"one core": one}, items=items, unit="pairs", rounds=9, warmup=warmup)
    torch.set_num_threads(cores)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_share_of_products(benchmark, tables, monkeypatch, precision):
    """The share of matrix products in one shard's time on one thread. Attention's are not counted."""
    benchmark.pedantic(lambda: None)
    config = dataclasses.replace(NOTEBOOK, precision=precision)
    model, sampler, world = prepared(config)
    setup = Setup(model, [sampler], config, world, choose_precision(config, CPU))
    shares, parameters = Shares(setup, 0), list(model.parameters())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def shard():
        losses = shares.losses(model, 0, world.shards)
        torch.autograd.grad(losses.sum(), parameters)

    def recorded(*arguments):
        with record_function("matrix_product"):
            kernel(*arguments)

    kernel = native.matrix_product
    monkeypatch.setattr(native, "matrix_product", recorded)
    shard()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter()
        for _ in range(9):
            shard()
        seconds = time.perf_counter() - start
    torch.set_num_threads(threads)
    products = ("aten::mm", "aten::addmm", "aten::addmm_", "matrix_product")
    share = sum(row.self_cpu_time_total for row in profiled.key_averages() if row.key in products) / 1e6 / seconds
    benchmark.extra_info["share of products"] = share
    tables.append([f"products of matrices in the step's time, notebook's size, {precision}: {share:.0%}"])


CANDIDATES = {
    "ours, fp32": lambda: our_step(dataclasses.replace(NOTEBOOK, precision="fp32")),
    "ours, auto": lambda: our_step(NOTEBOOK),
    "ours, fp32, --deterministic": lambda: our_step(
        dataclasses.replace(NOTEBOOK, precision="fp32", deterministic=True)
    ),
    "ours, auto, --deterministic": lambda: our_step(dataclasses.replace(NOTEBOOK, deterministic=True)),
    "notebook (d2l), fp32": notebook,
}


@pytest.mark.long
@pytest.mark.usefixtures("wikitext")
def test_peak_memory(benchmark, add_row):
    """What training takes beyond the model and its data, each candidate in its own process."""
    benchmark.pedantic(lambda: None)
    candidates = sized([*CANDIDATES], smoke=["ours, auto, --deterministic", "notebook (d2l), fp32"])
    peaks = {label: peak_of_process(__file__, label) for label in candidates}
    benchmark.extra_info.update({f"{label} (peak MB)": peak for label, peak in peaks.items()})
    notebooks = peaks.pop("notebook (d2l), fp32")
    for label, peak in peaks.items():
        name = f"peak memory of three training steps, notebook's size, batch {NOTEBOOK.batch_size}, {label}"
        add_row(name, "notebook (d2l), fp32", "MB", peak, notebooks)


if __name__ == "__main__":
    step = CANDIDATES[sys.argv[1]]()
    print(peak_memory(lambda: [step() for _ in range(3)]))
