"""One process's part of a run: setup, steps, logging, and the end of the run.

The step number alone determines the position in the data, so neither resuming nor splitting a batch over ranks needs
any other state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertfast import ops
from bertfast.config import SamplerConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed import process_group
from bertfast.distributed.collectives import from_rank_0, wait_for_all
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.threads import threads_restored
from bertfast.distributed.world import World, describe, describe_graph, why_not_deterministic
from bertfast.errors import InputError, Stopped
from bertfast.reporting.context_free import ContextFree
from bertfast.reporting.diagnosis import Diagnosis, Subject
from bertfast.reporting.metrics import History, Record
from bertfast.reporting.progress import Progress
from bertfast.reporting.run_info import RunInfo, Text
from bertfast.reporting.times import Times, seconds_before
from bertfast.sampling.long_sentences import MOST_UNREACHED
from bertfast.sampling.sampler import Sampler
from bertfast.training import checkpoint
from bertfast.training.broadcast import broadcast_state
from bertfast.training.budget import Budget, extra_seconds, provisional_steps, steps_of_epochs
from bertfast.training.determinism import deterministic_torch
from bertfast.training.device_check import choice
from bertfast.training.device_check.job import SAMPLER
from bertfast.training.evaluation import HeldOut, evaluate, in_words
from bertfast.training.fingerprint import identity, shared_by_ranks, twins_of
from bertfast.training.job import TrainingJob
from bertfast.training.loss_form import LossForm, broadcast_form, choose_loss_form, use_form
from bertfast.training.optimizer import make_optimizer
from bertfast.training.out_of_memory import explained_out_of_memory
from bertfast.training.resume import extended, has_ended, newest_checkpoint, resume
from bertfast.training.run import Run, base_of
from bertfast.training.run_directory import RunDirectory
from bertfast.training.schedule import learning_rate
from bertfast.training.setup import Setup, prepare
from bertfast.training.signals import from_flags, noted_signals, to_flag
from bertfast.training.stages import StagedSteps
from bertfast.training.step import Measured, Steps
from bertfast.training.text_start import start_from_text

logger = logging.getLogger(__name__)

# The longest time between checkpoints, and so the most work that a crash can lose, whatever --checkpoint-every is.
CHECKPOINT_SECONDS = 600


class Trainer:
    """Trains the job's model on this process's share of every batch.

    Evaluates on `eval_corpus`, or with `config.eval` on a share of `corpus` that it does not train on. The main process
    writes metrics.jsonl and checkpoints to `directory` during training, and the files of `Run.save` at the end.
    """

    def __init__(self, job: TrainingJob, world: World, directory: RunDirectory) -> None:
        model, corpus, config, eval_corpus = job
        dtype = choose_precision(config, world.device)
        if config.eval:
            corpus, eval_corpus = corpus.split(config.eval_share)
        self._held_out = None if eval_corpus is None else _held_out(eval_corpus, config, world)
        if config.keep_vectors and not model.trained_len:
            raise InputError("--keep-vectors keeps what a trained model's vectors say: give --init, or leave it out")
        prepare(model, corpus, config, world)
        self._corpus, self._eval_corpus, self._directory = corpus, eval_corpus, directory
        self._base_model = base_of(model)
        lengths = (config.max_len, config.short_len) if config.short_len else (config.max_len,)
        stages = [dataclasses.replace(config, short_len=0, max_len=length) for length in lengths]
        long, *short = ([Sampler(corpus, stage, device) for device in world.local] for stage in stages)
        self._setup = Setup(model, long, config, world, dtype, short[0] if short else ()).with_teachers()
        if config.epochs:
            self._setup = self._setup.with_steps(steps_of_epochs(self._setup))
            config = self._setup.config
        self._optimizer = make_optimizer(self._setup)
        self._diagnosis = Diagnosis(_subject(self._setup, corpus, eval_corpus), config)
        self._history = History()
        self._times = Times()
        self._checkpoints: checkpoint.Writer | None = None
        self._budget: Budget | None = None
        self._first_step, self._pairs_per_second = 0, 0.0
        self._begun = self._saved = 0.0  # times of the first step and of the latest checkpoint
        self._evaluation_seconds = 0.0

    def train(self) -> Run:
        """The whole run. Raises Stopped if a signal ends it, and InputError for errors that the user can fix."""
        world = self._setup.world
        with contextlib.ExitStack() as until_saved:
            with contextlib.ExitStack() as contexts:
                take_step, signals = self._begin(contexts, until_saved)
                step = self._first_step
                while step < self._setup.config.steps:
                    config = self._setup.config
                    held_out, saves = self._evaluation_due(step), checkpoint_due(step, config)
                    estimates = self._budget is not None and self._budget.is_due(step + 1)
                    wait = held_out is not None or saves or estimates or step + 1 == config.steps
                    flags = 0.0
                    flag = to_flag(signals, self._is_checkpoint_overdue(), world)
                    for measured in take_step(step, flag, wait):
                        self._record(step, measured)
                        flags = max(flags, measured.flags)
                    if self._budget is not None and estimates:
                        self._estimate(self._budget, step + 1, take_step)
                        held_out = self._evaluation_due(step)  # this step may turn out to be the last
                    if held_out is not None:
                        self._evaluate(step, held_out)
                    self._diagnose()
                    stop, overdue = from_flags(flags, world)
                    if stop is not None and step + 1 < self._setup.config.steps:
                        self._stop(stop, step + 1)
                    if (saves or overdue) and self._checkpoints is not None:
                        self._checkpoints.save(step + 1)
                        self._saved = time.perf_counter()
                    step += 1
            return self._end(self._setup.config.steps)

    def _begin(self, contexts: contextlib.ExitStack, until_saved: contextlib.ExitStack) -> tuple[Steps, list[int]]:
        """Enters the run's contexts. Returns the steps, and a list that receives signals until the run is saved."""
        setup, directory = self._setup, self._directory
        model, requested = setup.model, setup.world
        newest, fingerprint_before, device_choice = None, None, choice.Choice()
        if requested.rank == 0:
            newest = newest_checkpoint(directory)
            fingerprint_before = None if newest is None else newest.run
            device_choice = choice.choose(requested.device, len(requested.devices), setup.config.check)
            device_choice = device_choice.without(twins_of(fingerprint_before))
        setup = self._apply(device_choice, contexts)
        world = setup.world
        info, settled = None if newest is None else self._run_info(), 0
        if info is not None and info.settled and info.train.minutes == setup.config.minutes > 0:
            settled = info.train.steps
        if minutes := setup.config.minutes:
            done = 0 if newest is None else newest.step
            self._setup = setup = setup.with_steps(settled or provisional_steps(minutes, done, self._seconds(done)))
        if settled:
            self._diagnosis.set_length(setup.config, setup.readings(self._corpus.num_tokens))
        config = setup.config
        form = choose_loss_form(setup, fingerprint_before, device_choice.fused)
        fingerprint = identity(setup, self._corpus, form.name, device_choice.twins)
        is_longer = newest is not None and has_ended(newest, info) and config.steps > newest.step
        if newest is not None:
            if is_longer:
                logger.info(
                    "the run had ended after %s steps: continuing it with the learning rate of a longer run",
                    newest.step,
                )
                newest = extended(newest, fingerprint)
            self._first_step = resume(newest, model, self._optimizer, fingerprint, config)
        elif directory.resumed and world.rank == 0:
            assert directory.path is not None
            if (directory.path / "model.safetensors").exists():
                raise InputError(
                    f"{directory.path} holds a model but no checkpoint to continue from: train the model on with "
                    f"--init {directory.path} and another --out"
                )
            logger.info("%s holds no checkpoint: starting at step 0", directory.path)
        is_new = newest is None
        del newest  # its tensors take as much memory as the training state
        if world.rank == 0:
            self._open_directory(fingerprint, settled > 0 or not config.minutes, is_longer)
            self._describe(setup, device_choice, form)
        # The steps come last: their graphs must be freed before the process group, whose teardown waits for them.
        contexts.enter_context(explained_out_of_memory(config, world))
        contexts.enter_context(threads_restored())
        contexts.enter_context(deterministic_torch(world))
        contexts.enter_context(contextlib.closing(self._history))
        contexts.enter_context(contextlib.closing(self._optimizer))
        if self._checkpoints is not None:
            contexts.enter_context(contextlib.closing(self._checkpoints))
        shared = shared_by_ranks(fingerprint, requested, config)
        contexts.enter_context(process_group.joined(world, shared, config.timeout))
        device_choice = choice.broadcast_choice(device_choice, requested)
        if requested.rank > 0:
            setup = self._apply(device_choice, contexts)
        world = setup.world
        contexts.enter_context(use_form(broadcast_form(form, world), model))
        # What ends with the contexts can take seconds, too. During the set-up above a signal ends the run at once.
        signals = until_saved.enter_context(noted_signals())
        if world.rank == 0 and is_new:
            self._start()
        self._first_step = broadcast_state(world, model, self._optimizer, self._first_step)
        self._begun = self._saved = time.perf_counter()
        if config.minutes:
            setup = self._begin_budget(from_rank_0(world, settled > 0) > 0, from_rank_0(world, config.steps))
            config = setup.config
        progress = Progress(config.steps, self._first_step, config.log_every)
        self._progress = contexts.enter_context(contextlib.closing(progress))
        take_step = StagedSteps(setup, self._optimizer, self._first_step)
        return contexts.enter_context(contextlib.closing(take_step)), signals

    def _start(self) -> None:
        """Sets what a new model knows before its first step. It takes seconds, which count as the run's."""
        model, config = self._setup.model, self._setup.config
        if config.start_from == "text" and not model.trained_len:
            begun = time.perf_counter()
            counted = start_from_text(model, self._corpus, config.seed)
            self._times.before = time.perf_counter() - begun
            if counted:
                logger.info("counted in %.1f s which tokens stand side by side", self._times.before)
            else:
                logger.info("the text has too few tokens to count which stand side by side")

    def _begin_budget(self, settled: bool, steps: int) -> Setup:
        """The setup for rank 0's number of steps, which is yet to be estimated unless it is settled."""
        self._setup = setup = self._setup.with_steps(steps)
        if not settled:
            self._budget = Budget(setup.config, self._first_step, self._times.before, extra_seconds(setup))
        return setup

    def _estimate(self, budget: Budget, done: int, take_step: Steps) -> None:
        """Sets the number of steps to how many fit into the run's minutes, judging by the first `done` steps."""
        world = self._setup.world
        seconds = time.perf_counter() - self._begun + self._times.before
        steps = from_rank_0(world, budget.estimate(done, seconds, self._evaluation_seconds))
        self._setup = setup = self._setup.with_steps(steps)
        budget.plan(done, setup.config)
        take_step.set_length(steps)
        self._progress.total = steps
        warnings = self._diagnosis.set_length(setup.config, setup.readings(self._corpus.num_tokens))
        if budget.settled and world.rank == 0:
            logger.info("%s steps fit into %g minutes", f"{steps:,}", setup.config.minutes)
            for line in warnings:
                logger.warning(line)
            self._write_run_info(settled=True)

    def _run_info(self) -> RunInfo | None:
        """The run.json that an earlier part of the run wrote."""
        path = self._directory.path
        return RunInfo.read(path) if path is not None and (path / "run.json").exists() else None

    def _seconds(self, done: int) -> float:
        """The seconds that the first `done` steps took in earlier parts of the run."""
        path = self._directory.path
        return 0.0 if path is None else seconds_before(path / "times.jsonl", done)

    def _write_run_info(self, settled: bool) -> None:
        path, setup = self._directory.path, self._setup
        if path is not None:
            texts = Text.of(self._corpus), None if self._eval_corpus is None else Text.of(self._eval_corpus)
            RunInfo(setup.model.config, setup.config, *texts, settled).write(path)

    def _describe(self, setup: Setup, device_choice: choice.Choice, form: LossForm) -> None:
        """Logs what the run computes with, and what is known about it before its first step."""
        world = setup.world
        compiled = ", compiled" if setup.config.compile else ""
        devices, kernels = describe(world, setup.dtype), ops.kernels(world.device)
        logger.info("%s%s%s; kernels: %s", devices, describe_graph(world), compiled, kernels)
        if why := why_not_deterministic(setup.config, world):
            logger.info(why)
        for line in device_choice.warnings:
            logger.warning(line)
        if setup.sampler.residence:
            logger.info("the corpus takes %s", setup.sampler.residence)
        if lost := setup.sampler.unreached():
            log = logger.warning if lost > MOST_UNREACHED else logger.info
            log("%s of the tokens are in no example", f"{lost:.1%}")
        for line in self._diagnosis.before() if self._first_step < setup.config.steps else ():
            logger.warning(line)
        if form.reason:
            (logger.warning if form.warns else logger.info)(form.reason)

    def _apply(self, device_choice: choice.Choice, contexts: contextlib.ExitStack) -> Setup:
        """Disables in the ops, the samplers and the setup whatever fails on the device. Returns the new setup."""
        contexts.enter_context(ops.use_twins(device_choice.twins))
        setup = self._setup
        if SAMPLER in device_choice.failures:
            for sampler in (*setup.samplers, *setup.short_samplers):
                sampler.make_on_host()
            if self._held_out is not None:
                self._held_out.make_on_host()
        self._setup = setup._replace(world=device_choice.world(setup.world, setup.config.cuda_graph))
        return self._setup

    def _open_directory(self, fingerprint: dict[str, Any], settled: bool, is_longer: bool) -> None:
        """Opens the run's files. `is_longer`: of a run that had ended, and now goes on."""
        path, setup = self._directory.path, self._setup
        if path is None:
            return
        path.mkdir(parents=True, exist_ok=True)
        journal = path / "metrics.jsonl"
        self._history = History(journal, self._first_step, setup.config.tensorboard)
        self._times = Times(path / "times.jsonl", self._first_step)
        folder, keep = path / "checkpoints", setup.config.keep_checkpoints
        state = checkpoint.state(setup.model, self._optimizer)
        self._checkpoints = checkpoint.Writer(folder, keep, journal, fingerprint, state)
        self._checkpoints.tidy(self._first_step)
        if is_longer:  # before run.json, which then no longer tells that the run had ended
            self._checkpoints.save_now(self._first_step)
        self._write_run_info(settled)

    def _record(self, step: int, measured: Measured) -> None:
        """Records a step's metrics, known after `step`. Raises InputError if they are non-finite."""
        config = self._setup.config
        if not measured.is_finite():
            raise InputError(non_finite(measured, config.optimizer, self._directory.path))
        lr = learning_rate(measured.step, config)
        kept = measured.kept_loss if config.keep_vectors else None
        record = Record(measured.step, measured.mlm_loss, measured.nsp_loss, lr, measured.norm, measured.tokens, kept)
        self._history.add(record)
        seconds = time.perf_counter() - self._begun
        self._times.add(measured.step, seconds)
        self._pairs_per_second = (step + 1 - self._first_step) * config.batch_size / seconds
        losses = f"MLM {measured.mlm_loss:.3f}"
        if config.objective != "none":
            losses += f", {config.objective.upper()} {measured.nsp_loss:.3f}"
        if kept is not None:
            losses += f", vectors {kept:.3f}"
        examples = "examples" if config.objective == "none" else "pairs"
        self._progress.advance(f"{losses}, {self._pairs_per_second:.0f} {examples}/s")

    def _evaluation_due(self, step: int) -> HeldOut | None:
        return None if self._held_out is None else self._held_out.due(step, self._setup.config)

    def _evaluate(self, step: int, held_out: HeldOut) -> None:
        setup = self._setup
        if setup.world.rank == 0 and step + 1 == setup.config.steps:
            logger.info("evaluating on %s held-out examples", held_out.examples)
        begun = time.perf_counter()
        evaluation = evaluate(setup.model, held_out, step, setup.dtype, setup.world)
        self._evaluation_seconds += time.perf_counter() - begun
        self._history.add(evaluation)
        if setup.world.rank == 0:
            logger.info("step %s, held-out text: %s", step + 1, in_words(evaluation, setup.config.objective))

    def _diagnose(self) -> None:
        if self._setup.world.rank == 0:
            for finding in self._diagnosis.after(self._history, time.perf_counter() - self._begun):
                logger.warning(finding)

    def _is_checkpoint_overdue(self) -> bool:
        return self._checkpoints is not None and time.perf_counter() - self._saved > CHECKPOINT_SECONDS

    def _stop(self, signal: int, steps: int) -> None:
        """Ends the run after `steps` steps, with a checkpoint and the model as it is."""
        if self._checkpoints is not None:
            self._end(steps)
            path = self._checkpoints.path(steps)
            logger.info("stopped after step %s, saved in %s: continue with --resume", steps, path)
        wait_for_all(self._setup.world)  # torchrun ends all ranks once one has ended, and rank 0 may still be writing
        raise Stopped(signal)

    def _end(self, steps: int) -> Run:
        """The run, which ends after `steps` steps. The main process writes its files."""
        setup = self._setup
        setup.model.eval()
        setup.model.trained_len = max(setup.model.trained_len, setup.config.at(steps - 1).max_len)
        self._history.complete()
        run = Run(
            setup.model,
            self._corpus,
            setup.config,
            self._history,
            setup.world.devices,
            self._pairs_per_second,
            self._eval_corpus,
            self._base_model,
        )
        if self._checkpoints is not None and self._directory.path is not None:
            last = [functools.partial(self._checkpoints.save_now, steps)] if self._first_step < steps else []
            _write_all(*last, self._history.write, self._times.write, functools.partial(run.save, self._directory.path))
        return run


def _held_out(corpus: Corpus, config: TrainConfig, world: World) -> HeldOut:
    try:
        return HeldOut.of(corpus, config, world.device)
    except InputError as error:  # it speaks of "the corpus"
        raise InputError(f"the text to evaluate on: {error}") from None


def _subject(setup: Setup, corpus: Corpus, eval_corpus: Corpus | None) -> Subject:
    """What the diagnosis needs to know about the run's texts and model."""
    config, counts, specials = setup.config, corpus.token_counts, corpus.special_ids
    held_out = None
    if eval_corpus is not None:
        # The initial output bias also adds 1 to each count. Evaluations mask by default shares.
        held_out = ContextFree.of(eval_corpus.token_counts, counts + 1, specials, SamplerConfig())
    return Subject(
        training=ContextFree.of(counts, counts, specials, config),
        held_out=held_out,
        tokens=corpus.num_tokens,
        readings=0.0 if config.minutes else setup.readings(corpus.num_tokens),
        weights=0 if setup.model.trained_len else sum(each.numel() for each in setup.model.layers.parameters()),
    )


def non_finite(measured: Measured, optimizer: str, out: Path | None) -> str:
    """The error message for a non-finite loss or gradient."""
    step = measured.step
    show = "" if out is None else f"; its batch: python -m bertfast.corpus show {shlex.quote(str(out))} --step {step}"
    metrics = f"the loss is {measured.mlm_loss:g}, its gradient's norm {measured.norm:g}"
    rates = "--lr and --muon-lr" if optimizer == "muon" else "--lr"
    return f"at step {step} {metrics}: lower {rates}, or lengthen --warmup{show}"


def checkpoint_due(step: int, config: TrainConfig) -> bool:
    """Whether to save a checkpoint after `step`. The last one is written with the run's other files instead."""
    every = config.checkpoint_every
    return every > 0 and (step + 1) % every == 0 and step + 1 < config.steps


def _write_all(*writes: Callable[[], None]) -> None:
    """Makes every write, even after one has failed. Raises InputError for the failed ones."""
    failures = []
    for write in writes:
        try:
            write()
        except InputError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{error.filename or 'a file'} can't be written: {error.strerror}")
    if failures:
        raise InputError("; ".join(failures))
