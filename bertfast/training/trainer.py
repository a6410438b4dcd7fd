"""Training: the loop of each process of a run.

The position in the data is the step number alone, so that resuming and splitting a batch over ranks need no state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bertfast import ops
from bertfast._native import native
from bertfast.config import TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed import process_group
from bertfast.distributed.world import World, choose_precision, describe
from bertfast.errors import InputError, Stopped
from bertfast.hub.transformers import save_model
from bertfast.log import shows_progress
from bertfast.model import Bert
from bertfast.ops.product import computed_by_onednn
from bertfast.reporting.diagnosis import Diagnosis, contextless_loss, unigram_entropy
from bertfast.reporting.metrics import History, Record
from bertfast.reporting.plot import draw_losses
from bertfast.reporting.run_info import RunInfo, Text
from bertfast.sampling.long_sentences import MOST_UNREACHED
from bertfast.sampling.sampler import Sampler
from bertfast.training import checkpoint
from bertfast.training.adam import Adam
from bertfast.training.evaluation import evaluate, held_out_sampler, in_words
from bertfast.training.fingerprint import differences, identity, of_all_ranks
from bertfast.training.loss_form import choose_loss_form, of_rank_0, taken
from bertfast.training.schedule import learning_rate
from bertfast.training.step import make_steps

logger = logging.getLogger(__name__)

# No more work than this is lost to a crash, however rarely --checkpoint-every asks for one.
CHECKPOINT_SECONDS = 600


@dataclasses.dataclass
class Run:
    """A finished run: the trained model, what it was trained on, and how it went."""

    model: Bert
    corpus: Corpus
    config: TrainConfig
    history: History
    devices: list[torch.device]
    pairs_per_second: float

    def save(self, folder: str | Path) -> None:
        """Writes the Hugging Face folder (config.json, model.safetensors, tokenizer files), loss.svg and loss.png."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, folder)
        self.corpus.tokenizer.save(folder, self.model.config.max_position_embeddings)
        for name in ("loss.svg", "loss.png"):
            entropy = unigram_entropy(self.corpus.token_counts)
            draw_losses(self.history, folder / name, entropy, self.config.objective)


def train(
    model: Bert,
    corpus: Corpus,
    config: TrainConfig,
    world: World,
    out: Path | None,
    resume: bool,
    held_out: Corpus | None = None,
) -> Run:
    """The loop, on this process's share of every batch. Evaluates on `held_out`; with `config.eval`, on a share."""
    dtype = choose_precision(config, world.device)
    if config.eval:
        corpus, held_out = corpus.split(config.eval_share)
    evaluated = None if held_out is None else held_out_sampler(held_out, config, world.device)
    prepare(model, corpus, config, world)
    counts, special_ids = corpus.token_counts, corpus.special_ids
    contextless = contextless_loss(counts, special_ids, config.mask_share, config.random_share)
    diagnosis = Diagnosis(unigram_entropy(counts), contextless, config)
    samplers = [Sampler(corpus, config, device) for device in world.local]
    optimizer = Adam(model.parameters(), dtype)
    kept = checkpoint.newest(out / "checkpoints") if resume and out is not None and world.rank == 0 else None
    form = choose_loss_form(model, samplers[0], config, world, dtype, None if kept is None else kept.run)
    run_identity = identity(model.config, corpus, config, world, dtype, form.name)
    first_step = 0
    if kept is not None:
        first_step = _resume(kept, model, optimizer, run_identity, config)
    elif resume and out is not None:
        logger.info("%s holds no checkpoint: starting at step 0", out)
    del kept  # its tensors take as much memory as a run's state
    history, checkpoints = History(), None
    if world.rank == 0:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            journal = out / "metrics.jsonl"
            history = History(journal, first_step, config.tensorboard)
            checkpoints = checkpoint.Writer(
                out / "checkpoints", config.keep_checkpoints, journal, run_identity, model, optimizer
            )
            checkpoints.tidy(first_step)
            texts = Text.of(corpus), None if held_out is None else Text.of(held_out)
            RunInfo(model.config, config, *texts).write(out)
        products = ", products by oneDNN" if computed_by_onednn(world.device, dtype) else ""
        compiled = ", compiled" if config.compile else ""
        logger.info("%s%s; kernels: %s%s", describe(world, dtype), compiled, ops.kernels(world.device), products)
        if samplers[0].residence:
            logger.info("the corpus takes %s", samplers[0].residence)
        if lost := samplers[0].unreached():
            tell = logger.warning if lost > MOST_UNREACHED else logger.info
            tell("%s of the tokens are in no example", f"{lost:.1%}")
        if form.reason:
            logger.info(form.reason)

    with (
        contextlib.closing(history),
        contextlib.closing(optimizer),
        contextlib.nullcontext() if checkpoints is None else contextlib.closing(checkpoints),
        process_group.joined(world, of_all_ranks(run_identity, world, config), config.timeout),
        taken(of_rank_0(form, world), model),
        _noted_signals() as signals,
        tqdm(total=config.steps, initial=first_step, unit="step", file=sys.stderr, disable=not shows_progress()) as bar,
    ):
        first_step = process_group.share_state(world, model, optimizer, first_step)
        take_step = make_steps(model, samplers, optimizer, config, world, dtype, first_step)
        started = saved = time.perf_counter()
        for step in range(first_step, config.steps):
            evaluates, keeps = evaluation_due(step, config), checkpoint_due(step, config)
            overdue = checkpoints is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS
            flags = 0.0
            for measured in take_step(step, _flag(signals, overdue, world), wait=evaluates or keeps):
                if not measured.is_number():
                    raise InputError(no_number(measured.step, measured.mlm_loss, measured.norm, out))
                lr, flags = learning_rate(measured.step, config), max(flags, measured.flags)
                history.add(Record(measured.step, measured.mlm_loss, measured.nsp_loss, lr))
                if (finding := diagnosis.after(history.records)) and world.rank == 0:
                    logger.warning(finding)
                pairs_per_second = (step + 1 - first_step) * config.batch_size / (time.perf_counter() - started)
                pairs = "" if config.objective == "none" else f", {config.objective.upper()} {measured.nsp_loss:.3f}"
                losses = f"MLM {measured.mlm_loss:.3f}{pairs}, {pairs_per_second:.0f} pairs/s"
                bar.set_postfix_str(losses, refresh=False)
                bar.update()
            if evaluated is not None and evaluates:
                found = evaluate(model, evaluated, step, dtype, world)
                history.add(found)
                if world.rank == 0:
                    logger.info("step %s, held-out text: %s", step + 1, in_words(found, config.objective))
            stop, overdue = _told(flags, world)
            if stop is not None and step + 1 < config.steps:
                if checkpoints is not None:
                    _write_all(functools.partial(checkpoints.save_now, step + 1), history.write)
                    logger.info(
                        "stopped after step %s, kept in %s: --resume goes on", step + 1, checkpoints.path(step + 1)
                    )
                process_group.wait_for_all(world)  # the first to end has the others ended, and rank 0 was still writing
                raise Stopped(stop)
            if (keeps or overdue) and checkpoints is not None:
                checkpoints.save(step + 1)
                saved = time.perf_counter()

    model.eval()
    history.complete()
    run = Run(model, corpus, config, history, world.devices, pairs_per_second if first_step < config.steps else 0.0)
    if checkpoints is not None and out is not None:
        with _noted_signals():
            last = [functools.partial(checkpoints.save_now, config.steps)] if first_step < config.steps else []
            _write_all(*last, history.write, functools.partial(run.save, out))
    return run


def _write_all(*writes: Callable[[], None]) -> None:
    """Calls them all, and raises InputError for those that the disk refused."""
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


def _flag(signals: list[int], overdue: bool, world: World) -> float:
    """What a rank adds to the sum that all learn: its signal, and whether a checkpoint is overdue by its clock.

    One SIGTERM is more than a SIGINT from every rank, and what is overdue more than all signals.
    """
    of_signal = 0 if not signals else world.size + 1 if signals[0] == signal.SIGTERM else 1
    return float(of_signal + overdue * (world.size + 1) ** 2)


def _told(flags: float, world: World) -> tuple[int | None, bool]:
    """What the sum says: the signal that ends the run, if any, and whether a checkpoint is overdue."""
    overdue, signals = divmod(flags, (world.size + 1) ** 2)
    return None if not signals else signal.SIGTERM if signals > world.size else signal.SIGINT, overdue > 0


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Notes the first SIGINT or SIGTERM in the list instead of letting it break into a step; a second one breaks in."""
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        noted.append(number)
        signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare(model: Bert, corpus: Corpus, config: TrainConfig, world: World) -> None:
    """Brings the model to its device, ready to be trained."""
    model.config.check_takes(corpus.vocab_size, config)
    # On a CPU nothing differs from run to run, and asking makes torch import its compiler, which takes seconds.
    if world.deterministic and world.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    native.keep_freed_memory()
    if not model.masked_lm_head.bias.any():
        model.masked_lm_head.start_from_frequencies(torch.from_numpy(np.array(corpus.token_counts)))
    for module in (model.pooler, model.next_sentence_head):  # nothing reads them without pairs
        module.requires_grad_(config.objective != "none")
    model.to(world.device).train()
    if config.compile:
        model.compile(dynamic=True, fullgraph=True)  # one program for batches of all sizes


def no_number(step: int, loss: float, norm: float, out: Path | None) -> str:
    """What a run says that ends because its loss or its gradient is no number any more."""
    look = "" if out is None else f"; its batch: python -m bertfast.corpus show {out} --step {step}"
    return f"at step {step} the loss is {loss:g}, its gradient's norm {norm:g}: lower --lr, or lengthen --warmup{look}"


def evaluation_due(step: int, config: TrainConfig) -> bool:
    """Ten times a run, and at its end."""
    return step + 1 == config.steps or (step + 1) % max(1, config.steps // 10) == 0


def checkpoint_due(step: int, config: TrainConfig) -> bool:
    """The last step's is written with all else that a run leaves."""
    every = config.checkpoint_every
    return every > 0 and (step + 1) % every == 0 and step + 1 < config.steps


def _resume(
    found: checkpoint.Checkpoint,
    model: Bert,
    optimizer: Adam,
    now: dict[str, Any],
    config: TrainConfig,
) -> int:
    """Restores the checkpoint and returns the number of steps done.

    Raises InputError where the run can't go on from it, or not exactly and `config.inexact` does not allow that.
    """
    changes = "".join(f"\n  {difference}" for difference in differences(found.run, now))
    if misfit := checkpoint.misfit(found, model):
        raise InputError(
            f"{found.path} is a checkpoint of another model ({misfit}): give the options of the run that wrote it, or "
            f"another --out. What differs:{changes}"
        )
    if changes and not config.inexact:
        raise InputError(
            f"{found.path} can't be gone on with exactly: give the options of the run that wrote it, another --out, or "
            f"--inexact to go on all the same. What differs:{changes}"
        )
    if changes:
        logger.warning("the run won't end as the one that wrote %s would have. What differs:%s", found.path, changes)
    checkpoint.restore(found, model, optimizer)
    done = ", which is the end: nothing is left to do" if found.step >= config.steps else ""
    logger.info("resuming from %s, step %s%s", found.path, found.step, done)
    return found.step
