"""How the training step's rate grows over batch size, hidden size and cores, beside transformers', as a picture."""

from __future__ import annotations

import dataclasses
import datetime
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import pytest
import torch
from bench_sizes import Size, size
from bench_step import CPU, NOTEBOOK, WARMUP, our_step, theirs
from machine import ROOT, processor
from sizes import SMOKE, sized
from support.notebook import wikitext_folder

from bertfast.config import BertConfig
from bertfast.data.load import load_corpus
from bertfast.distributed.devices import choose_precision
from bertfast.files import whole_file

ROUNDS = sized(5, smoke=1)
BATCH_SIZES = sized((4, 8, 16, 32, 64, 128), smoke=(2, 4))
HIDDEN_SIZES = sized((128, 256, 384, 512, 768), smoke=(64, 128))
CORES = sized(tuple(range(1, torch.get_num_threads() + 1)), smoke=(1,))

Step = Callable[[], object]


class Panel(NamedTuple):
    """One part of the picture: the rates of both over what grows."""

    title: str
    grows: str
    values: Sequence[int]
    ours: Sequence[float]
    theirs: Sequence[float]

    def lines(self) -> list[str]:
        head = f"{self.grows:<22}{'ours':>12}{'transformers':>15}{'ratio':>8}   pairs/s, {self.title}"
        rows = zip(self.values, self.ours, self.theirs, strict=True)
        return [
            head,
            *(f"{value:<22}{ours:>12,.1f}{theirs:>15,.1f}{ours / theirs:>8.2f}" for value, ours, theirs in rows),
        ]


def rates(of: Size, threads: int, compiled: bool) -> tuple[float, float]:
    """Pairs a second of our step and of transformers', in the precision of `auto`: medians of alternating calls."""
    torch.set_num_threads(threads)
    peer = theirs(of.train, choose_precision(of.train, CPU), compiled, of.model)
    steps: tuple[Step, Step] = our_step(of.train, of.model), peer
    for _ in range(WARMUP):
        for step in steps:
            step()
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(ROUNDS):
        for step, taken in zip(steps, seconds, strict=True):
            begun = time.perf_counter()
            step()
            taken.append(time.perf_counter() - begun)
    our_rate, their_rate = (of.train.batch_size / statistics.median(taken) for taken in seconds)
    return our_rate, their_rate


def each_alone(sizes: Sequence[Size], threads: Sequence[int], compiled: bool) -> list[tuple[float, float]]:
    """The `rates` of each size, in a process of its own: memory that steps free stays with their process."""
    found = []
    for each in zip(sizes, threads, strict=True):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(rates, *each, compiled).result())
    return found


def panel(title: str, grows: str, sizes: dict[int, Size]) -> Panel:
    """Not compiled, since nearly every batch has another length."""
    found = each_alone([*sizes.values()], [torch.get_num_threads()] * len(sizes), compiled=False)
    return Panel(title, grows, [*sizes], *zip(*found, strict=True))


def over_cores() -> Panel:
    """Compiled; not in a smoke run, since compiling takes minutes."""
    vocab_size = load_corpus(wikitext_folder(), tokenizer="word").vocab_size
    of = Size(BertConfig(vocab_size=vocab_size), dataclasses.replace(NOTEBOOK, precision="auto"))
    found = each_alone([of] * len(CORES), CORES, compiled=not os.environ.get(SMOKE))
    return Panel(f"the notebook's size, batch {of.train.batch_size}", "cores", CORES, *zip(*found, strict=True))


@pytest.mark.long
@pytest.mark.usefixtures("wikitext")
def test_growth(benchmark, tables, tmp_path):
    benchmark.pedantic(lambda: None)
    panels = [
        panel("4 layers of 256, length 128", "batch size", {batch: size(4, 256, batch, 128) for batch in BATCH_SIZES}),
        panel(
            "4 layers, batch 32, length 128", "hidden size", {width: size(4, width, 32, 128) for width in HIDDEN_SIZES}
        ),
        over_cores(),
    ]
    folder = tmp_path if os.environ.get(SMOKE) else ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"growth-{datetime.date.today()}.svg"
    draw(panels, path)
    for each in panels:
        tables.append(each.lines())
    tables.append([f"drawn: {path}"])


def draw(panels: Sequence[Panel], path) -> None:
    import matplotlib  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    for axes, each in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for label, found, colour in (("bertfast", each.ours, "#0072B2"), ("transformers", each.theirs, "#D55E00")):
            axes.plot(each.values, found, "o-", color=colour, linewidth=1.5, markersize=4, label=label)
        axes.set(xlabel=each.grows, ylabel="sentence pairs a second", ylim=(0, None))
        axes.set_title(each.title, fontsize=9)
        if each.grows == "batch size":
            axes.set_xscale("log", base=2)
        axes.set_xticks(each.values, [str(value) for value in each.values])
        axes.minorticks_off()
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{processor()}, {torch.get_num_threads()} threads, auto precision", fontsize=9)
    with whole_file(path) as partial, matplotlib.rc_context({"svg.hashsalt": "bertfast"}):  # reproducible ids
        figure.savefig(partial, metadata={"Date": None, "Creator": None})
