"""`train`: runs training in this process, or in a process for each of several devices."""

from __future__ import annotations

from pathlib import Path

from bertfast.config import TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.devices import choose_devices, log_choice, torchrun_world
from bertfast.distributed.peers import peers
from bertfast.distributed.world import make_world
from bertfast.errors import InputError, require_package
from bertfast.files import expanded
from bertfast.model import Bert
from bertfast.torchrun import under_torchrun
from bertfast.training.job import TrainingJob
from bertfast.training.run import Run
from bertfast.training.run_directory import RunDirectory, claimed
from bertfast.training.trainer import Trainer
from bertfast.training.workers import train_in_workers


def train(
    model: Bert,
    corpus: Corpus,
    config: TrainConfig,
    out: str | Path | None = None,
    resume: bool = False,
    eval_corpus: Corpus | None = None,
) -> Run:
    """Trains `model` on `corpus`, in place, and returns the run.

    With `out`, training writes metrics.jsonl and checkpoints to that folder, and at the end the files of `Run.save`;
    with `resume`, it continues from the newest intact checkpoint. Several devices get one process each
    (`parallel="ddp"`: started here, or by torchrun) or one thread each (`"dp"`). The model is evaluated on
    `eval_corpus` at the end and up to nine times before; it needs the tokenizer of `corpus`
    (`load_corpus(..., tokenizer=corpus.folder)`). Raises InputError for invalid input.
    """
    check_extras(config, eval_corpus is not None)
    if config.tensorboard and out is None:
        raise InputError("tensorboard=True writes into the run's folder: name one with `out`")
    if resume and out is None:
        raise InputError("resume=True continues a run: name its folder with `out`")
    if under_torchrun():
        peers()  # all ranks meet before some get more work than others
    with claimed(None if out is None else expanded(out), resume) as directory:
        return train_in(directory, TrainingJob(model, corpus, config, eval_corpus))


def train_in(directory: RunDirectory, job: TrainingJob) -> Run:
    """`train`, in a run directory that the caller has claimed."""
    config, eval_corpus = job.config, job.eval_corpus
    if eval_corpus and eval_corpus.tokenizer.backend.to_str() != job.corpus.tokenizer.backend.to_str():
        raise InputError("the corpus to evaluate on has another tokenizer: load_corpus(..., tokenizer=corpus.folder)")
    if directory.path is not None:
        require_package("matplotlib", f"drawing {directory.path / 'loss.svg'}")  # done at the end, so fail early
    if under_torchrun():
        return Trainer(job, torchrun_world(config), directory).train()
    devices = choose_devices(config)
    log_choice(config, devices)
    if len(devices) == 1 or config.parallel == "dp":
        return Trainer(job, make_world(config, devices, devices), directory).train()
    return train_in_workers(directory, job, devices)


def check_extras(config: TrainConfig, eval_corpus: bool) -> None:
    """Raises InputError if optional features can't be used. Call it before building a corpus."""
    if config.eval and eval_corpus:
        raise InputError("--eval holds out a share of the corpus, --eval-corpus brings other text: give one of them")
    if config.tensorboard:
        require_package("tensorboard", "--tensorboard")
