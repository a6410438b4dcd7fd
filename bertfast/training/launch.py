"""Runs training in one process or several: `train`, and the workers that it starts.

torchrun's agent starts the workers, which run this module. They read their job from a folder, so they do not import the
caller's program again, and nothing is pickled. They write a run directory, from which the caller reads the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.devices import choose_devices, log_choice, torchrun_world
from bertfast.distributed.peers import peers
from bertfast.distributed.world import make_world
from bertfast.errors import InputError, ProcessLost, Stopped, require_package
from bertfast.files import save_tensors
from bertfast.hub.transformers import load_pretrained
from bertfast.log import show_messages, shows_progress
from bertfast.model import Bert
from bertfast.reporting.metrics import History
from bertfast.reporting.run_info import RunInfo
from bertfast.torchrun import is_main_process, under_torchrun
from bertfast.training.run import Run, base_of
from bertfast.training.run_directory import RunDirectory, claimed
from bertfast.training.trainer import Trainer

logger = logging.getLogger(__name__)


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
    if under_torchrun():
        peers()  # all ranks meet before some get more work than others
    with claimed(None if out is None else Path(out), resume) as directory:
        return train_in(directory, model, corpus, config, eval_corpus)


def train_in(
    directory: RunDirectory, model: Bert, corpus: Corpus, config: TrainConfig, eval_corpus: Corpus | None
) -> Run:
    """`train`, in a run directory that the caller has claimed."""
    if eval_corpus and eval_corpus.tokenizer.backend.to_str() != corpus.tokenizer.backend.to_str():
        raise InputError("the corpus to evaluate on has another tokenizer: load_corpus(..., tokenizer=corpus.folder)")
    if directory.path is not None:
        require_package("matplotlib", f"drawing {directory.path / 'loss.svg'}")  # done at the end, so fail early
    if under_torchrun():
        return Trainer(model, corpus, config, torchrun_world(config), directory, eval_corpus).train()
    devices = choose_devices(config)
    log_choice(config, devices)
    if len(devices) == 1 or config.parallel == "dp":
        return Trainer(model, corpus, config, make_world(config, devices, devices), directory, eval_corpus).train()
    return _start_workers(directory, model, corpus, config, devices, eval_corpus)


def check_extras(config: TrainConfig, eval_corpus: bool) -> None:
    """Raises InputError if optional features can't be used. Call it before building a corpus."""
    if config.eval and eval_corpus:
        raise InputError("--eval holds out a share of the corpus, --eval-corpus brings other text: give one of them")
    if config.tensorboard:
        require_package("tensorboard", "--tensorboard")


def _start_workers(
    directory: RunDirectory,
    model: Bert,
    corpus: Corpus,
    config: TrainConfig,
    devices: list[torch.device],
    eval_corpus: Corpus | None,
) -> Run:
    """Trains in one process per device, and loads the trained weights into `model`."""
    with tempfile.TemporaryDirectory(prefix="bertfast-") as name:
        job = Path(name)
        out = directory.path or job / "run"
        base_model = base_of(model)
        try:
            save_tensors(model.state_dict(), job / "model.safetensors", {})
        except InputError as error:
            raise InputError(f"{error}: with TMPDIR, name a folder that has room for the workers' model") from None
        settings = {
            "model": dataclasses.asdict(model.config),
            "trained_len": model.trained_len,
            "base_model": model.base_model,
            "train": dataclasses.asdict(config),
            "corpus": _reference(corpus),
            "eval_corpus": eval_corpus and _reference(eval_corpus),
            "out": str(out),
            "resume": directory.resumed,
            "quiet": not shows_progress(),
        }
        (job / "job.json").write_text(json.dumps(settings), encoding="utf-8")
        with _worker_errors(job):
            _run_workers(job, len(devices))
        trained = load_pretrained(out).model
        model.load_state_dict(trained.state_dict())
        model.trained_len = trained.trained_len
        config = dataclasses.replace(config, steps=RunInfo.read(out).train.steps)
        history = History(out / "metrics.jsonl", config.steps)
        history.complete()
        pairs_per_second = json.loads((job / "pairs_per_second.json").read_text(encoding="utf-8"))
    if config.eval:
        corpus, eval_corpus = corpus.split(config.eval_share)
    return Run(model.eval(), corpus, config, history, devices, pairs_per_second, eval_corpus, base_model)


def _run_workers(job: Path, count: int) -> None:
    ends = ["SIGTERM", "SIGINT", "SIGQUIT"]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # torchrun's agent would handle it even under nohup
        ends.append("SIGHUP")
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(ends),
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # `_worker_errors` reports failures
    elastic_launch(launch, sys.executable)("-m", "bertfast.training.launch", str(job))


@contextlib.contextmanager
def _worker_errors(job: Path) -> Iterator[None]:
    """Raises the error that ended the workers as if it had been raised here."""
    try:
        yield
    except (SignalException, ChildFailedError) as end:
        if (job / "error").exists():
            raise InputError((job / "error").read_text(encoding="utf-8")) from None
        if (job / "stopped").exists():
            raise Stopped(int((job / "stopped").read_text(encoding="utf-8"))) from None
        if isinstance(end, SignalException):
            logger.info("interrupted")
            raise Stopped(end.sigval) from None
        raise ProcessLost(_in_words(end.failures)) from None


def _in_words(failures: Mapping[int, ProcessFailure]) -> str:
    """Which worker ended first, and how; workers that torchrun stopped because of it don't count."""
    rank, first = min(
        failures.items(), key=lambda failure: (failure[1].exitcode == -signal.SIGTERM, failure[1].timestamp)
    )
    how = f"was killed by {first.signal_name()}" if first.exitcode < 0 else "ended: its own message says why"
    return f"worker {rank} (process {first.pid}) {how}"


def _reference(corpus: Corpus) -> dict[str, Any]:
    """What a worker needs to open the corpus, as JSON: its folder, and the attributes that the folder does not hold."""
    names = ("part", "description", "names", "language")
    return {"folder": str(corpus.folder), **{name: getattr(corpus, name) for name in names}}


def _open(reference: dict[str, Any]) -> Corpus:
    corpus = dataclasses.replace(
        Corpus.open(reference["folder"]),
        description=tuple(reference["description"]),
        names=tuple(reference["names"]),
        language=reference["language"],
    )
    return corpus.documents(*reference["part"]) if reference["part"] else corpus


def _work(job: Path) -> int:
    """Runs one worker and returns its exit status."""
    settings = json.loads((job / "job.json").read_text(encoding="utf-8"))
    show_messages(settings["quiet"])
    try:
        config = TrainConfig(**settings["train"])
        model = Bert(BertConfig(**settings["model"]))
        model.trained_len, model.base_model = settings["trained_len"], settings["base_model"]
        model.load_state_dict(load_file(job / "model.safetensors"))
        corpus, eval_corpus = (each and _open(each) for each in (settings["corpus"], settings["eval_corpus"]))
        directory = RunDirectory(Path(settings["out"]), settings["resume"])
        run = Trainer(model, corpus, config, torchrun_world(config), directory, eval_corpus).train()
        if is_main_process():
            (job / "pairs_per_second.json").write_text(json.dumps(run.pairs_per_second), encoding="utf-8")
    except (InputError, OSError) as error:
        (job / "error").write_text(str(error), encoding="utf-8")
        return 2
    except ProcessLost:  # the caller reports which worker
        return 1
    except Stopped as stopped:
        (job / "stopped").write_text(str(int(stopped.signal)), encoding="utf-8")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_work(Path(sys.argv[1])))
