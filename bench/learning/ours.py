"""Our own training: what `python -m bertfast.pretrain --preset NAME --minutes N` does, in slices."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from learning.contender import Contender
from learning.held_out_loss import bert_loss

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.devices import choose_devices
from bertfast.distributed.world import make_world
from bertfast.errors import Stopped
from bertfast.model import Bert
from bertfast.presets import PRESETS
from bertfast.training.evaluation import HeldOut
from bertfast.training.job import TrainingJob
from bertfast.training.run_directory import RunDirectory
from bertfast.training.step import Measured
from bertfast.training.trainer import Trainer

OURS, OLD_DEFAULTS = "ours", "0.3.0's defaults"


class Run(Contender):
    """A run with `--minutes`. A slice ends as by Ctrl-C, with a checkpoint, from which the next one resumes.

    So its clock is the run's own, which counts neither the setup nor the time between its parts, and its number of
    steps is what a run that never stopped would have estimated.
    """

    def __init__(
        self, kind: str, label: str, sizes: BertConfig, config: TrainConfig, corpus: Corpus, folder: Path
    ) -> None:
        self.kind, self.label = kind, label
        self.settings = {"model": dataclasses.asdict(sizes), "train": dataclasses.asdict(config)}
        self._config, self._corpus, self._folder = config, corpus, folder
        torch.manual_seed(config.seed)
        self._model = Bert(sizes)
        self._ended = False

    def train_until(self, seconds: float) -> None:
        """The last slice ends where the run does: within a few percent of its minutes."""
        if self._ended:
            return
        until = seconds if seconds < 60 * self._config.minutes else math.inf
        devices = choose_devices(self._config)
        world = make_world(self._config, devices, devices)
        directory = RunDirectory(self._folder, resumed=self.seconds > 0)
        trainer = _SlicedTrainer(TrainingJob(self._model, self._corpus, self._config), world, directory)
        trainer.until = until
        try:
            trainer.train()
            self._ended = True
        except Stopped:
            if not trainer.slice_ended:  # it was Ctrl-C indeed
                raise
        self.seconds = trainer.seconds

    def loss(self, examples: HeldOut) -> float:
        return bert_loss(self._model, examples)

    def as_bert(self) -> Bert:
        return self._model


class _SlicedTrainer(Trainer):
    until = math.inf
    """When to stop, in seconds of the run's clock."""
    seconds = 0.0
    """Of the run's clock, after the latest step."""
    slice_ended = False

    def _record(self, step: int, measured: Measured) -> None:
        super()._record(step, measured)
        assert self._times is not None
        self.seconds = self._times.before + time.perf_counter() - self._begun
        if self.seconds >= self.until and not self.slice_ended:
            self.slice_ended = True
            signal.raise_signal(signal.SIGINT)  # the run notes it and stops after the next step


def _run(
    kind: str, label: str, preset: str, model: dict[str, Any], train: TrainConfig, corpus: Corpus, at: Path
) -> Run:
    sizes = BertConfig(vocab_size=corpus.vocab_size, **{**PRESETS[preset].model, **model})
    return Run(kind, label, sizes, train, corpus, at)


def ours(preset: str, minutes: float, seed: int, corpus: Corpus, folder: Path) -> Run:
    """The preset's defaults."""
    config = TrainConfig(**{**PRESETS[preset].train, "minutes": minutes}, seed=seed, device="cpu")
    return _run(OURS, f"{OURS}, seed {seed}", preset, {}, config, corpus, folder / f"ours-{seed}")


def old_defaults(preset: str, minutes: float, corpus: Corpus, folder: Path) -> Run:
    """What 0.3.0 did with `--preset tiny` or `mini` in a run of this length.

    It warmed up for 5 steps, whatever the run. Here that is a tenth of the run, as in the version after it: the number
    of steps can only be estimated before the rate falls.
    """
    config = TrainConfig(
        minutes=minutes,
        device="cpu",
        objective="nsp",
        segments="sentence",
        max_len=64,
        short_len=0,
        mlm_probability=0.15,
        batch_size=512,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        warmup=0.1,
        decay=0.9,
        max_grad_norm=1.0,
    )
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return _run(OLD_DEFAULTS, OLD_DEFAULTS, preset, dropout, config, corpus, folder / "old-defaults")
