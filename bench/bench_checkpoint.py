"""The cost of checkpoints, compared with the same training without them, and the time to resume a run."""

from __future__ import annotations

import dataclasses
import itertools
import time

import pytest
import torch
from sizes import sized
from support.messages import listening
from support.notebook import wikitext_folder

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.load import load_corpus
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.world import make_world
from bertfast.model import Bert
from bertfast.sampling.sampler import Sampler
from bertfast.training import trainer
from bertfast.training.checkpoint import Writer, state
from bertfast.training.fingerprint import identity
from bertfast.training.launch import train
from bertfast.training.optimizer import make_optimizer
from bertfast.training.setup import Setup, prepare
from bertfast.training.step import make_steps
from bertfast.training.trainer import checkpoint_due

CPU = torch.device("cpu")
EVERY = sized(50, smoke=2)
LATE = sized(1_000_000, smoke=1_000)
NOTEBOOK = TrainConfig(batch_size=sized(512, smoke=16), device="cpu", steps=1_000_000)


class Trained:
    """The notebook's training, step by step."""

    def __init__(self, config):
        self.config = config
        self.corpus = load_corpus(wikitext_folder(), tokenizer="word")
        self.model = Bert(BertConfig(vocab_size=self.corpus.vocab_size))
        self.world, self.dtype = make_world(config, [CPU], [CPU]), choose_precision(config, CPU)
        prepare(self.model, self.corpus, config, self.world)
        self.setup = Setup(self.model, [Sampler(self.corpus, config)], config, self.world, self.dtype)
        self.optimizer = make_optimizer(self.setup)
        self.take_step = make_steps(self.setup, self.optimizer, 0)

    def step(self, number):
        self.take_step(number, 0.0, wait=True)

    def writer(self, folder):
        journal = folder / "metrics.jsonl"
        journal.touch()
        fingerprint = identity(self.setup, self.corpus, "chunked")
        keep = self.config.keep_checkpoints
        return Writer(folder / "checkpoints", keep, journal, fingerprint, state(self.model, self.optimizer))


@pytest.mark.long
def test_a_checkpoint_every_50_steps(compare, tables, tmp_path):
    """The checkpoint is requested before the steps and written while they run."""
    trained, messages = Trained(NOTEBOOK), []
    writer = trained.writer(tmp_path)
    numbers = itertools.count()

    def steps():
        for _ in range(EVERY):
            trained.step(next(numbers))

    def with_checkpoint():
        writer.save(next(numbers))
        steps()

    name = f"training, notebook's size, batch {trained.config.batch_size}, a checkpoint every {EVERY} steps"
    with listening(messages.append):
        seconds = compare(name, with_checkpoint, {"without checkpoints": steps}, rounds=5, items=EVERY, unit="steps")
    writer.close()
    assert not messages
    cost = seconds["ours"] / seconds["without checkpoints"] - 1
    tables.append([f"a checkpoint every {EVERY} steps of the notebook's size costs {cost:.2%} of the time"])


def test_resuming_after_a_million_steps(benchmark, monkeypatch, tables, tmp_path):
    """Resuming replays nothing, so the number of earlier steps does not matter."""
    benchmark.pedantic(lambda: None)
    config = dataclasses.replace(NOTEBOOK, steps=LATE + 1)
    trained = Trained(config)
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.writelines(f'{{"step": {step}, "mlm_loss": 5.9, "nsp_loss": 0.7, "lr": 0.001}}\n' for step in range(LATE))
    trained.step(0)
    trained.writer(tmp_path).save_now(LATE)
    times = {}

    def note_resumption(message):
        if message.startswith("resuming from"):
            times["resumed"] = time.perf_counter()

    def note_first_step(*arguments):
        times["begun"] = time.perf_counter()
        return checkpoint_due(*arguments)

    monkeypatch.setattr(trainer, "checkpoint_due", note_first_step)
    started = time.perf_counter()
    with listening(note_resumption):
        train(Bert(trained.model.config), trained.corpus, config, tmp_path, resume=True)
    tables.append(
        [
            f"resuming the notebook's model at step {LATE:,}",
            f"  checkpoint found, verified and loaded after      {times['resumed'] - started:8.2f} s",
            f"  and from there to the first step                 {times['begun'] - times['resumed']:8.2f} s",
        ]
    )
