"""The training step at common sizes: small batches, MiniLM's and BERT-base's models, long sequences."""

from __future__ import annotations

import dataclasses
import sys
from typing import NamedTuple

import pytest
from bench_step import CPU, MINI, MINI_MODEL, WARMUP, our_step, theirs
from memory import peak_memory, peak_of_process
from sizes import sized

from bertfast.config import BertConfig, TrainConfig
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.world import make_world
from bertfast.model import Bert
from bertfast.presets import PRESETS

VOCAB_SIZE = 30522
WARM = 3
"""The rounds that warm up, and the batches that transformers' step gets in turn. More would take minutes."""


class Size(NamedTuple):
    """A model and its batches."""

    model: BertConfig
    train: TrainConfig


def size(layers: int, hidden: int, batch_size: int, max_len: int, segments: str = "sentence") -> Size:
    model = BertConfig(
        vocab_size=VOCAB_SIZE,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    return Size(model, TrainConfig(batch_size=batch_size, max_len=max_len, segments=segments, device="cpu"))


MINILM = sized(size(6, 384, 32, 128), smoke=size(1, 128, 4, 128))
BASE = sized(size(12, 768, 16, 128), smoke=size(1, 128, 4, 128))
BASE_LONG = sized(size(12, 768, 8, 512, "fill"), smoke=size(1, 128, 2, 512, "fill"))


def described(of: Size) -> str:
    return f"{of.model.num_hidden_layers} x {of.model.hidden_size}, batch {of.train.batch_size} x {of.train.max_len}"


def transformers_step(config: TrainConfig, model: BertConfig):
    return theirs(config, choose_precision(config, CPU), compiled=False, model_config=model, batches=WARM)


def beside_transformers(compare, of: Size, precision: str, bar: float) -> None:
    config = dataclasses.replace(of.train, precision=precision)
    peer = f"transformers, {precision}"
    compare(
        f"training step, {described(of)}, {precision}",
        our_step(config, of.model),
        {peer: transformers_step(config, of.model)},
        items=config.batch_size,
        unit="pairs",
        rounds=3,
        warmup=WARM,
        bars={peer: bar},
    )


@pytest.mark.parametrize("precision, bar", [("bf16", 6.5), ("fp32", 4.0)])
def test_minilm(compare, precision, bar):
    beside_transformers(compare, MINILM, precision, bar)


@pytest.mark.parametrize("precision, bar", [("bf16", 4.0), ("fp32", 2.8)])
def test_base(compare, precision, bar):
    beside_transformers(compare, BASE, precision, bar)


@pytest.mark.long
@pytest.mark.parametrize("precision, bar", [("bf16", 2.0), ("fp32", 1.3)])
def test_base_with_long_sequences(compare, precision, bar):
    beside_transformers(compare, BASE_LONG, precision, bar)


@pytest.mark.parametrize("preset", ["tiny", "mini"])
def test_small_batches(compare, preset):
    """With the preset's recipe; a call trains on the same number of examples in both."""
    large = sized(512, smoke=16)
    small = large // 8
    settings = {name: value for name, value in PRESETS[preset].train.items() if name not in ("dropout", "minutes")}
    config = TrainConfig(**settings, max_len=64, device="cpu")
    model = BertConfig(vocab_size=VOCAB_SIZE, **PRESETS[preset].model)
    one = our_step(dataclasses.replace(config, batch_size=large), model)
    several = our_step(dataclasses.replace(config, batch_size=small), model)
    peer = f"batch {large}"
    compare(
        f"training step, {preset}, batch {small}",
        lambda: [several() for _ in range(8)],
        {peer: one},
        items=large,
        unit="examples",
        rounds=5,
        warmup=WARM,
        bars={peer: 0.85},
    )


@pytest.mark.long
@pytest.mark.parametrize("precision", sized(["bf16", "fp32"], smoke=["bf16"]))
@pytest.mark.parametrize("of", [Size(MINI_MODEL, MINI), MINILM, BASE], ids=["mini", "minilm", "base"])
def test_cost_of_determinism(compare, of, precision):
    """The default if it is deterministic, with a bar; else `--deterministic`, which takes more shards than the default.

    bench_workers has the notebook's size.
    """
    config = dataclasses.replace(of.train, precision=precision)
    default = make_world(config, [CPU], [CPU]).deterministic
    peer = "--no-deterministic"
    compare(
        f"deterministic {'by default' if default else 'as asked for'}, {described(of)}, {precision}",
        our_step(dataclasses.replace(config, deterministic=None if default else True), of.model),
        {peer: our_step(dataclasses.replace(config, deterministic=False), of.model)},
        items=config.batch_size,
        unit="pairs",
        rounds=5,
        warmup=WARMUP,
        bars={peer: 0.95} if default else {},
    )


CANDIDATES = {"ours": our_step, "transformers": transformers_step}


@pytest.mark.long
@pytest.mark.usefixtures("wikitext")
def test_memory(benchmark, add_row):
    """The peak of two steps beyond the weights and Adam's two averages, each candidate in its own process."""
    benchmark.pedantic(lambda: None)
    ours, peer = (peak_of_process(__file__, candidate) for candidate in CANDIDATES)
    name = f"memory beyond weights and optimizer, {described(BASE)}, bf16"
    add_row(name, "transformers, bf16", "MB", ours, peer, most=0.5)


if __name__ == "__main__":
    config = dataclasses.replace(BASE.train, precision="bf16")
    # Each parameter's weight and Adam's two averages: ours makes them before the first step, torch's in it.
    state = 12 * sum(each.numel() for each in Bert(BASE.model).parameters())

    def train() -> None:
        step = CANDIDATES[sys.argv[1]](config, BASE.model)
        for _ in range(2):
            step()

    print(peak_memory(train) - state / 1e6)
