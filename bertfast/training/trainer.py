"""One process's part of a run: setup, steps, logging, and the end of the run.

The step number alone determines the position in the data, so resuming, and splitting a batch over ranks, need no state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertfast import ops
from bertfast._native import native
from bertfast.config import SamplerConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed import process_group
from bertfast.distributed.collectives import from_rank_0, wait_for_all
from bertfast.distributed.differences import differences
from bertfast.distributed.world import World, choose_precision, describe, why_not_deterministic
from bertfast.errors import InputError, Stopped
from bertfast.hub.card_text import CardFacts
from bertfast.hub.model_card import save_card
from bertfast.hub.transformers import save_model
from bertfast.model import Bert
from bertfast.ops.product import computed_by_onednn
from bertfast.reporting.average import Average
from bertfast.reporting.context_free import ContextFree, unigram_entropy
from bertfast.reporting.diagnosis import Diagnosis, Subject
from bertfast.reporting.metrics import History, Record
from bertfast.reporting.plot import draw_losses
from bertfast.reporting.progress import Progress
from bertfast.reporting.run_info import RunInfo, Text
from bertfast.reporting.times import Times
from bertfast.sampling.long_sentences import MOST_UNREACHED
from bertfast.sampling.sampler import Sampler
from bertfast.training import checkpoint
from bertfast.training.broadcast import broadcast_state
from bertfast.training.budget import Budget, extra_seconds, steps_of_epochs
from bertfast.training.determinism import deterministic_torch
from bertfast.training.device_check import choice
from bertfast.training.device_check.job import SAMPLER
from bertfast.training.evaluation import HeldOut, evaluate, in_words
from bertfast.training.fingerprint import extended, from_checkpoint, has_ended, identity, shared_by_ranks, twins_of
from bertfast.training.first_attention import attend_to_neighbours
from bertfast.training.loss_form import LossForm, broadcast_form, choose_loss_form, use_form
from bertfast.training.optimizer import Optimizer, make_optimizer
from bertfast.training.out_of_memory import explained_out_of_memory
from bertfast.training.run_directory import RunDirectory
from bertfast.training.schedule import learning_rate
from bertfast.training.setup import Setup
from bertfast.training.signals import from_flags, noted_signals, to_flag
from bertfast.training.stages import make_stages
from bertfast.training.step import Measured, Steps

logger = logging.getLogger(__name__)

# The most work that a crash can lose, however large --checkpoint-every is.
CHECKPOINT_SECONDS = 600


@dataclasses.dataclass
class Run:
    """A finished run: the trained model, its corpus and configuration, and its metrics."""

    model: Bert
    corpus: Corpus
    config: TrainConfig
    history: History
    devices: list[torch.device]
    pairs_per_second: float
    held_out: Corpus | None = None
    """What it was evaluated on."""
    base_model: str | None = None
    """What the Hugging Face Hub calls the model that it began with, empty if that is not known. None: none, but random
    weights."""
    average: Average | None = None
    """What `model` has in place of the trained weights, if it has."""

    def save(self, folder: str | Path) -> None:
        """Writes the Hugging Face folder: config.json, model.safetensors, tokenizer files, loss.svg, loss.png, and the
        model card README.md. A card that the user has edited stays."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, folder)
        self.corpus.tokenizer.save(folder, self.model.max_len)
        for name in ("loss.svg", "loss.png"):
            entropy = unigram_entropy(self.corpus.token_counts)
            draw_losses(self.history, folder / name, entropy, self.config.objective)
        dtype = choose_precision(self.config, self.devices[0])
        texts = self.corpus, self.held_out
        save_card(
            folder, CardFacts(self.model, self.config, *texts, self.history, dtype, self.base_model, self.average)
        )


class Trainer:
    """Trains `model` on this process's share of every batch.

    Evaluates on `held_out`; with `config.eval`, on a share of `corpus` that it does not train on. The main process
    writes metrics.jsonl and checkpoints to `directory` during training, and the files of `Run.save` at the end.
    """

    def __init__(
        self,
        model: Bert,
        corpus: Corpus,
        config: TrainConfig,
        world: World,
        directory: RunDirectory = RunDirectory(),  # noqa: B008 (it is immutable)
        held_out: Corpus | None = None,
    ) -> None:
        dtype = choose_precision(config, world.device)
        if config.eval:
            corpus, held_out = corpus.split(config.eval_share)
        self._evaluated = None if held_out is None else HeldOut.of(held_out, config, world.device)
        prepare(model, corpus, config, world)
        self._corpus, self._held_out, self._directory = corpus, held_out, directory
        self._base_model = base_of(model)
        long, short = (
            [Sampler(corpus, config.at(step), device) for device in world.local] if step >= 0 else []
            for step in (config.steps - 1, config.first_long_step - 1)
        )
        self._setup = Setup(model, long, config, world, dtype, short)
        if config.epochs:
            self._setup = self._setup.with_steps(steps_of_epochs(self._setup))
            config = self._setup.config
        self._optimizer = make_optimizer(self._setup)
        self._diagnosis = Diagnosis(_subject(self._setup, corpus, held_out), config)
        self._history = History()
        self._times = Times()
        self._checkpoints: checkpoint.Writer | None = None
        self._budget: Budget | None = None
        self._first_step, self._pairs_per_second = 0, 0.0
        self._begun = self._saved = 0.0  # times of the first step and of the latest checkpoint
        self._evaluating = 0.0  # seconds

    def train(self) -> Run:
        """The whole run. Raises Stopped if a signal ends it, and InputError for errors that the user can fix."""
        world = self._setup.world
        with contextlib.ExitStack() as held:
            take_step, signals = self._begin(held)
            step = self._first_step
            while step < self._setup.config.steps:
                config = self._setup.config
                evaluated, saves = self._evaluation_due(step), checkpoint_due(step, config)
                estimates = self._budget is not None and self._budget.is_due(step + 1)
                reads = evaluated is not None or saves or estimates or step + 1 == config.steps
                flags = 0.0
                flag = to_flag(signals, self._is_checkpoint_overdue(), world)
                for measured in take_step(step, flag, wait=reads):
                    self._record(step, measured)
                    flags = max(flags, measured.flags)
                if evaluated is not None:
                    self._evaluate(step, evaluated)
                self._diagnose()
                stop, overdue = from_flags(flags, world)
                if stop is not None and step + 1 < config.steps:
                    self._stop(stop, step + 1)
                if (saves or overdue) and self._checkpoints is not None:
                    self._checkpoints.save(step + 1)
                    self._saved = time.perf_counter()
                if self._budget is not None and estimates:
                    self._estimate(self._budget, step + 1, take_step)
                step += 1
        return self._finish()

    def _begin(self, held: contextlib.ExitStack) -> tuple[Steps, list[int]]:
        """Enters the run's contexts into `held`. Returns the steps, and a list that receives signals."""
        setup, directory = self._setup, self._directory
        model, asked = setup.model, setup.world
        found = None
        if directory.path is not None and directory.resumed and asked.rank == 0:
            found = checkpoint.newest(directory.path / "checkpoints")
        if found is not None:
            found = found._replace(run=from_checkpoint(found.run))
        before = None if found is None else found.run
        trusted = choice.Choice()
        if asked.rank == 0:
            trusted = choice.choose(asked.device, len(asked.devices), setup.config.check).without(twins_of(before))
        setup = self._trust(trusted, held)
        world = setup.world
        written, settled = None if found is None else self._run_info(), 0
        if written is not None and written.settled and written.train.minutes == setup.config.minutes > 0:
            settled = written.train.steps
            self._setup = setup = setup.with_steps(settled)
        config = setup.config
        form = choose_loss_form(setup, before, trusted.fused)
        run = identity(setup, self._corpus, form.name, trusted.twins)
        if found is not None:
            if has_ended(found, written) and (config.steps > found.step or (config.minutes and not settled)):
                logger.info(
                    "the run had ended after %s steps: continuing it with the learning rate of a longer run", found.step
                )
                found = extended(found, run)
            self._first_step = _resume(found, model, self._optimizer, run, config)
        elif directory.resumed and world.rank == 0:
            logger.info("%s holds no checkpoint: starting at step 0", directory.path)
        del found  # its tensors take as much memory as the training state
        if world.rank == 0:
            self._open_directory(run, settled > 0 or not config.minutes)
            self._describe(setup, trusted, form)
        # The steps come last: their graphs must be freed before the process group, whose teardown waits for them.
        held.enter_context(explained_out_of_memory(config, world))
        held.enter_context(deterministic_torch(world))
        held.enter_context(contextlib.closing(self._history))
        held.enter_context(contextlib.closing(self._optimizer))
        if self._checkpoints is not None:
            held.enter_context(contextlib.closing(self._checkpoints))
        held.enter_context(process_group.joined(world, shared_by_ranks(run, asked, config), config.timeout))
        if asked.rank > 0:
            setup = self._trust(choice.broadcast_choice(trusted, asked), held)
        else:
            choice.broadcast_choice(trusted, asked)
        world = setup.world
        held.enter_context(use_form(broadcast_form(form, world), model))
        signals = held.enter_context(noted_signals())
        self._first_step = broadcast_state(world, model, self._optimizer, self._first_step)
        self._begun = self._saved = time.perf_counter()
        if config.minutes:
            setup = self._begin_budget(from_rank_0(world, settled))
            config = setup.config
        self._progress = held.enter_context(
            contextlib.closing(Progress(config.steps, self._first_step, config.log_every))
        )
        take_step = held.enter_context(contextlib.closing(make_stages(setup, self._optimizer, self._first_step)))
        return take_step, signals

    def _begin_budget(self, settled: int) -> Setup:
        """The setup for `settled` steps; 0: for a number that is still to be estimated."""
        setup = self._setup
        if not settled:
            self._budget = Budget(setup.config, self._first_step, self._times.before, extra_seconds(setup))
            settled = self._budget.config.steps
        self._setup = setup.with_steps(settled)
        return self._setup

    def _estimate(self, budget: Budget, done: int, take_step: Steps) -> None:
        """Sets the number of steps to what fits into the run's minutes, by what `done` steps took."""
        world = self._setup.world
        seconds = time.perf_counter() - self._begun + self._times.before
        steps = from_rank_0(world, budget.estimate(done, seconds, self._evaluating))
        budget.plan(done, steps)
        self._setup = self._setup.with_steps(steps)
        take_step.set_number(steps)
        self._progress.total = steps
        warnings = self._diagnosis.set_length(self._setup.config, _readings(self._setup, self._corpus))
        if budget.settled and world.rank == 0:
            logger.info("%s steps fit into %g minutes", f"{steps:,}", budget.config.minutes)
            for line in warnings:
                logger.warning(line)
            self._write_run_info(settled=True)

    def _run_info(self) -> RunInfo | None:
        """What an earlier part of the run wrote to run.json."""
        path = self._directory.path
        return RunInfo.read(path) if path is not None and (path / "run.json").exists() else None

    def _write_run_info(self, settled: bool) -> None:
        path, setup = self._directory.path, self._setup
        if path is not None:
            texts = Text.of(self._corpus), None if self._held_out is None else Text.of(self._held_out)
            RunInfo(setup.model.config, setup.config, *texts, settled).write(path)

    def _describe(self, setup: Setup, trusted: choice.Choice, form: LossForm) -> None:
        """Logs what the run computes with, and what is known of it before its first step."""
        world = setup.world
        products = ", products by oneDNN" if computed_by_onednn(world.device, setup.dtype) else ""
        compiled = ", compiled" if setup.config.compile else ""
        devices, kernels = describe(world, setup.dtype), ops.kernels(world.device)
        logger.info("%s%s; kernels: %s%s", devices, compiled, kernels, products)
        if why := why_not_deterministic(setup.config, world):
            logger.info(why)
        for line in trusted.warnings:
            logger.warning(line)
        if setup.sampler.residence:
            logger.info("the corpus takes %s", setup.sampler.residence)
        if lost := setup.sampler.unreached():
            tell = logger.warning if lost > MOST_UNREACHED else logger.info
            tell("%s of the tokens are in no example", f"{lost:.1%}")
        for line in self._diagnosis.before() if self._first_step < setup.config.steps else ():
            logger.warning(line)
        if form.reason:
            (logger.warning if form.warns else logger.info)(form.reason)

    def _trust(self, trusted: choice.Choice, held: contextlib.ExitStack) -> Setup:
        """The setup without what `trusted` disables. Applies it to the ops and samplers, too."""
        held.enter_context(trusted.applied())
        setup = self._setup
        if SAMPLER in trusted.failures:
            for sampler in (*setup.samplers, *setup.short_samplers):
                sampler.make_on_host()
            if self._evaluated is not None:
                self._evaluated.make_on_host()
        self._setup = setup._replace(world=trusted.world(setup.world, setup.config.cuda_graph))
        return self._setup

    def _open_directory(self, run: dict[str, Any], settled: bool) -> None:
        path, setup = self._directory.path, self._setup
        if path is None:
            return
        path.mkdir(parents=True, exist_ok=True)
        journal = path / "metrics.jsonl"
        self._history = History(journal, self._first_step, setup.config.tensorboard)
        self._times = Times(path / "times.jsonl", self._first_step)
        keep = setup.config.keep_checkpoints
        self._checkpoints = checkpoint.Writer(path / "checkpoints", keep, journal, run, setup.model, self._optimizer)
        self._checkpoints.tidy(self._first_step)
        self._write_run_info(settled)

    def _record(self, step: int, measured: Measured) -> None:
        """Logs a step's metrics, which became known after `step`. Raises InputError if they are non-finite."""
        config = self._setup.config
        if not measured.is_finite():
            raise InputError(non_finite(measured, config.optimizer, self._directory.path))
        lr = learning_rate(measured.step, config)
        sampler = self._setup.samplers_at(measured.step)[0]
        tokens = int(sampler.plan(measured.step * config.batch_size, config.batch_size).lengths.sum())
        self._history.add(Record(measured.step, measured.mlm_loss, measured.nsp_loss, lr, measured.norm, tokens))
        seconds = time.perf_counter() - self._begun
        self._times.add(measured.step, seconds)
        self._pairs_per_second = (step + 1 - self._first_step) * config.batch_size / seconds
        pairs = "" if config.objective == "none" else f", {config.objective.upper()} {measured.nsp_loss:.3f}"
        self._progress.advance(f"MLM {measured.mlm_loss:.3f}{pairs}, {self._pairs_per_second:.0f} pairs/s")

    def _evaluation_due(self, step: int) -> HeldOut | None:
        return None if self._evaluated is None else self._evaluated.due(step, self._setup.config)

    def _evaluate(self, step: int, held_out: HeldOut) -> None:
        setup = self._setup
        if setup.world.rank == 0 and step + 1 == setup.config.steps:
            logger.info("evaluating on %s held-out examples", held_out.examples)
        begun = time.perf_counter()
        found = evaluate(setup.model, held_out, step, setup.dtype, setup.world)
        self._evaluating += time.perf_counter() - begun
        self._history.add(found)
        if setup.world.rank == 0:
            logger.info("step %s, held-out text: %s", step + 1, in_words(found, setup.config.objective))

    def _diagnose(self) -> None:
        if self._setup.world.rank == 0:
            for finding in self._diagnosis.after(self._history, time.perf_counter() - self._begun):
                logger.warning(finding)

    def _is_checkpoint_overdue(self) -> bool:
        return self._checkpoints is not None and time.perf_counter() - self._saved > CHECKPOINT_SECONDS

    def _stop(self, signal: int, steps: int) -> None:
        """Ends the run after `steps` steps, with a checkpoint and the model as it is."""
        if self._checkpoints is not None and self._directory.path is not None:
            self._write_end(steps, self._checkpoints, self._directory.path)
            path = self._checkpoints.path(steps)
            logger.info("stopped after step %s, saved in %s: continue with --resume", steps, path)
        wait_for_all(self._setup.world)  # torchrun ends all once one has ended, and rank 0 may still be writing
        raise Stopped(signal)

    def _finish(self) -> Run:
        steps = self._setup.config.steps
        if self._checkpoints is None or self._directory.path is None:
            return self._run(steps)
        with noted_signals():
            return self._write_end(steps, self._checkpoints, self._directory.path)

    def _write_end(self, steps: int, checkpoints: checkpoint.Writer, folder: Path) -> Run:
        """Writes all files of a run that ends after `steps` steps."""
        run = self._run(steps)
        last = [functools.partial(checkpoints.save_now, steps)] if self._first_step < steps else []
        _write_all(*last, self._history.write, self._times.write, functools.partial(run.save, folder))
        return run

    def _run(self, steps: int) -> Run:
        """The run, which ends after `steps` steps."""
        setup = self._setup
        setup.model.eval()
        setup.model.trained_len = max(setup.model.trained_len, setup.config.at(steps - 1).max_len)
        self._history.complete()
        return Run(
            setup.model,
            self._corpus,
            setup.config,
            self._history,
            setup.world.devices,
            self._pairs_per_second,
            self._held_out,
            self._base_model,
        )


def base_of(model: Bert) -> str | None:
    """`Run.base_model` of a run that is about to train `model`."""
    return model.base_model if model.trained_len else None


def prepare(model: Bert, corpus: Corpus, config: TrainConfig, world: World) -> None:
    """Moves the model to its device and prepares it for training."""
    model.config.check_takes(corpus.vocab_size, config)
    if world.deterministic and world.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product
    native.keep_freed_memory()
    if not model.masked_lm_head.bias.any():
        model.masked_lm_head.start_from_frequencies(torch.from_numpy(np.array(corpus.token_counts)))
    if config.first_attention == "neighbours" and not model.trained_len:
        attend_to_neighbours(model, config.seed)
    for module in (model.pooler, model.next_sentence_head):  # unused without pairs
        module.requires_grad_(config.objective != "none")
    model.to(world.device).train()
    if config.compile:
        model.compile(dynamic=True, fullgraph=True)  # one program for all batch sizes


def _subject(setup: Setup, corpus: Corpus, held_out: Corpus | None) -> Subject:
    """What the run's diagnosis must know of its texts and its model."""
    config, counts, specials = setup.config, corpus.token_counts, corpus.special_ids
    text = None
    if held_out is not None:  # evaluations mask by default shares
        text = ContextFree.on(held_out.token_counts, counts, specials, SamplerConfig())
    return Subject(
        training=ContextFree.within(counts, specials, config),
        held_out=text,
        tokens=corpus.num_tokens,
        readings=0.0 if config.minutes else _readings(setup, corpus),
        weights=0 if setup.model.trained_len else sum(each.numel() for each in setup.model.layers.parameters()),
    )


def _readings(setup: Setup, corpus: Corpus) -> float:
    """How often the run reads its corpus."""
    config = setup.config
    stages = ((0, 1 - config.long_share), (config.steps - 1, config.long_share))
    tokens = sum(
        share * int(setup.samplers_at(step)[0].plan(0, config.batch_size).lengths.sum()) for step, share in stages
    )
    return config.steps * tokens / corpus.num_tokens


def non_finite(measured: Measured, optimizer: str, out: Path | None) -> str:
    """The error message for a non-finite loss or gradient."""
    step = measured.step
    look = "" if out is None else f"; its batch: python -m bertfast.corpus show {out} --step {step}"
    found = f"the loss is {measured.mlm_loss:g}, its gradient's norm {measured.norm:g}"
    rates = "--lr and --muon-lr" if optimizer == "muon" else "--lr"
    return f"at step {step} {found}: lower {rates}, or lengthen --warmup{look}"


def checkpoint_due(step: int, config: TrainConfig) -> bool:
    """Whether to save a checkpoint after `step`. The last one is written with the run's other files instead."""
    every = config.checkpoint_every
    return every > 0 and (step + 1) % every == 0 and step + 1 < config.steps


def _write_all(*writes: Callable[[], None]) -> None:
    """Calls all of them, then raises InputError for those that failed."""
    refused = []
    for write in writes:
        try:
            write()
        except InputError as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(f"{error.filename or 'a file'} can't be written: {error.strerror}")
    if refused:
        raise InputError("; ".join(refused))


def _resume(
    found: checkpoint.Checkpoint,
    model: Bert,
    optimizer: Optimizer,
    now: dict[str, Any],
    config: TrainConfig,
) -> int:
    """Restores the checkpoint and returns the number of completed steps.

    Raises InputError if the run can't resume from it, or only inexactly without `config.inexact`.
    """
    changes = "".join(f"\n  {difference}" for difference in differences(found.run, now))
    if misfit := checkpoint.misfit(found, model, optimizer):
        raise InputError(
            f"{found.path} is a checkpoint of another model or optimizer ({misfit}): give the options of the run that "
            f"wrote it, or another --out. What differs:{changes}"
        )
    if changes and not config.inexact:
        raise InputError(
            f"{found.path} cannot be resumed exactly: give the options of the run that wrote it, another --out, or "
            f"--inexact to resume all the same. What differs:{changes}"
        )
    if changes:
        logger.warning(
            "the result will differ from that of the run that wrote %s. What differs:%s", found.path, changes
        )
    checkpoint.restore(found, model, optimizer)
    done = ", which is the end: nothing is left to do" if found.step >= config.steps else ""
    logger.info("resuming from %s, step %s%s", found.path, found.step, done)
    return found.step
