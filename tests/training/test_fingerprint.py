"""What a run's bits depend on, and the lines that name a difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.small_run import ALONE, CONFIG, CPU, SHARDED
from support.torch_threads import torch_threads

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.differences import differences
from bertfast.distributed.world import World, make_world
from bertfast.training import fingerprint as module
from bertfast.training.fingerprint import from_checkpoint, identity, shared_by_ranks
from bertfast.training.setup import Setup

MODEL = BertConfig(vocab_size=50)


def of(corpus: Corpus, world: World = SHARDED, dtype: torch.dtype = torch.float32, **changes: Any) -> dict[str, Any]:
    config = dataclasses.replace(CONFIG, **changes)
    model: Any = SimpleNamespace(config=MODEL)
    return identity(Setup(model, [], config, world, dtype), corpus, "chunked")


def test_what_leaves_the_weights_as_they_are(corpus: Corpus) -> None:
    one = of(corpus)
    free = {
        "gpus": 2,
        "timeout": 9,
        "tensorboard": True,
        "log_every": 7,
        "checkpoint_every": 3,
        "keep_checkpoints": 5,
        "inexact": True,
    }
    assert differences(one, of(corpus, **free)) == []
    assert differences(one, of(corpus, World(3, 4, [CPU] * 4, [CPU], True, 8))) == []
    assert differences(one, of(corpus, precision="auto", deterministic=True, shards=8)) == []
    assert differences(one, of(corpus)) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_matters_for_plain_sums_only(corpus: Corpus, threads: int) -> None:
    before = torch.get_num_threads()
    one, plain = of(corpus), of(corpus, ALONE)
    with torch_threads(threads):
        assert differences(one, of(corpus)) == []
        found = differences(plain, of(corpus, ALONE))
        assert len(found) == (threads != before)


CHANGES: dict[str, tuple[Callable[[Corpus], dict[str, Any]], str]] = {
    "steps": (lambda text: of(text, steps=4), "--steps: 3 -> 4"),
    "clip": (lambda text: of(text, max_grad_norm=2.0), "--clip: 1.0 -> 2.0"),
    "precision": (lambda text: of(text, dtype=torch.bfloat16), "precision: fp32 -> bf16"),
    "part": (lambda text: of(text.documents(3, 9)), "documents of the corpus: all -> [3, 9]"),
    "text": (lambda text: of(dataclasses.replace(text, fingerprint="f2")), "corpus: {fingerprint} -> f2"),
    "sums": (
        lambda text: of(text, make_world(TrainConfig(deterministic=True, shards=4), [CPU], [CPU])),
        "order of sums: one tree over 8 shards -> one tree over 4 shards",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_changes_the_weights(corpus: Corpus, case: str) -> None:
    change, line = CHANGES[case]
    found = differences(of(corpus), change(corpus))
    assert line.format(fingerprint=corpus.fingerprint) in found
    others = [other for other in found if other != line.format(fingerprint=corpus.fingerprint)]
    assert all(other.startswith("product of two matrices") for other in others)


def test_another_optimizer(corpus: Corpus) -> None:
    """Only runs with Muon record its rate; older checkpoints, which name no optimizer, are AdamW's."""
    adamw, muon = of(corpus), of(corpus, optimizer="muon", weight_decay=0.1)
    expected = ["--optimizer: adamw -> muon", "--weight-decay: 0.0 -> 0.1", "--muon-lr: unknown -> 0.02"]
    assert differences(adamw, muon) == expected
    assert differences(adamw, of(corpus, muon_lr=0.5)) == []
    assert differences(muon, of(corpus, optimizer="muon", weight_decay=0.1, muon_lr=0.5)) == ["--muon-lr: 0.02 -> 0.5"]
    older = {name: value for name, value in adamw.items() if name not in ("--optimizer", "--weight-decay")}
    assert differences(from_checkpoint(older), adamw) == []
    assert differences(from_checkpoint(older), muon) == expected
    assert from_checkpoint(muon) == muon


def test_another_start_and_a_head_that_learns_first(corpus: Corpus) -> None:
    """Only runs with them record them, so checkpoints of other runs stay as they were."""
    one = of(corpus)
    assert not one.keys() & {
        "--head-first",
        "--head-lr",
        "--keep-vectors",
        "kept_pooling",
        "init_weights",
        "weights of --init",
    }
    assert differences(one, of(corpus, head_lr=0.5)) == []
    head = of(corpus, head_first=0.2)
    assert differences(one, head) == ["--head-first: unknown -> 0.2", "--head-lr: unknown -> 0.002"]
    assert differences(head, of(corpus, head_first=0.2, head_lr=0.5)) == ["--head-lr: 0.002 -> 0.5"]
    assert differences(one, of(corpus, keep_vectors=2.0)) == [
        "--keep-vectors: unknown -> 2.0",
        "kept_pooling: unknown -> mean",
    ]
    started = of(corpus, init_weights="a1")
    assert differences(one, started) == ["weights of --init: unknown -> a1"]
    assert differences(started, of(corpus, init_weights="b2")) == ["weights of --init: a1 -> b2"]


def test_versions_and_the_machine(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(corpus)
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setattr(module, "__version__", "8.8")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS")
    names = [line.split(":")[0] for line in differences(before, of(corpus))]
    assert names == ["instruction set", "bertfast", "torch"]


def test_a_product_with_other_bits(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a processor or a library that its name does not tell apart."""
    before = of(corpus)
    product = module.matrix_product
    monkeypatch.setattr(module, "matrix_product", lambda a, b: torch.nextafter(product(a, b), torch.tensor(9e9)))
    assert [line.split(":")[0] for line in differences(before, of(corpus))] == ["product of two matrices"]


def test_names_that_only_one_of_them_knows() -> None:
    assert differences({"a": 1, "b": 2}, {"b": 2, "c": None}) == ["a: 1 -> unknown", "c: unknown -> None"]


@pytest.mark.parametrize("deterministic, inexact", [(True, False), (True, True), (False, False)])
def test_what_ranks_share(corpus: Corpus, monkeypatch, deterministic: bool, inexact: bool) -> None:
    """In a deterministic run, a rank on another kind of processor is refused, unless --inexact allows it."""
    config, world = dataclasses.replace(CONFIG, inexact=inexact), World(0, 2, [CPU] * 2, [CPU], deterministic, 8)

    def shared(**changes: Any) -> dict[str, Any]:
        return shared_by_ranks(of(corpus, world, **changes), world, config)

    first = shared()
    assert differences(first, shared(lr=1.0)) == [f"--lr: {CONFIG.lr} -> 1.0"]
    monkeypatch.setattr(module, "_product", lambda device, dtype: "other")
    assert differences(first, shared()) == (
        [f"product of two matrices: {first['product of two matrices']} -> other"] if deterministic > inexact else []
    )
