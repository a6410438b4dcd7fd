"""From one call to one process or several: `pretrain`, and the workers that it starts.

Workers are processes of torchrun's agent that run this module. They get their job as a folder, and answer through it,
so that the caller's own program is never imported again and no object is pickled.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from signal import SIGTERM
from typing import Any

from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.peers import peers
from bertfast.distributed.world import choose_devices, log_choice, make_world, torchrun_world, under_torchrun
from bertfast.errors import InputError, ProcessLost, Stopped, require_package
from bertfast.files import save_tensors
from bertfast.log import is_main_process, show_messages, shows_progress
from bertfast.model import Bert
from bertfast.reporting.metrics import Evaluation, History, Record
from bertfast.reporting.tensorboard import require_tensorboard
from bertfast.training.trainer import Run, train

logger = logging.getLogger(__name__)


def pretrain(
    model: Bert,
    corpus: Corpus,
    config: TrainConfig,
    out: str | Path | None = None,
    resume: bool = False,
    eval_corpus: Corpus | None = None,
) -> Run:
    """Trains `model` on `corpus`, in place, and returns the run.

    With `out`, the folder gets metrics.jsonl and checkpoints on the way, and what `Run.save` writes at the end; with
    `resume`, training goes on from its newest whole checkpoint. Several devices are one process each (`parallel="ddp"`:
    started here, or by torchrun) or one thread each (`"dp"`). `eval_corpus` is evaluated on ten times a run; it needs
    the tokenizer of `corpus` (`load_corpus(..., tokenizer=corpus.folder)`). Raises InputError for what cannot be used.
    """
    check_extras(config, eval_corpus is not None)
    if eval_corpus and eval_corpus.tokenizer.backend.to_str() != corpus.tokenizer.backend.to_str():
        raise InputError("the corpus to evaluate on has another tokenizer: load_corpus(..., tokenizer=corpus.folder)")
    if config.tensorboard and out is None:
        raise InputError("tensorboard=True writes into the run's folder: name one with `out`")
    folder = None if out is None else Path(out)
    if folder is not None:
        require_package("matplotlib", f"drawing {folder / 'loss.svg'}")  # which is done at the end
    if under_torchrun():
        peers()  # all ranks, before one has more to do than another
    if folder is not None and is_main_process():
        resume = claim_folder(folder, resume)
    if under_torchrun():
        if folder is not None and is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            peers().begins(folder)
        return train(model, corpus, config, torchrun_world(config), folder, resume, eval_corpus)
    devices = choose_devices(config)
    log_choice(config, devices)
    if len(devices) == 1 or config.parallel == "dp":
        return train(model, corpus, config, make_world(config, devices, devices), folder, resume, eval_corpus)
    return _start_workers(model, corpus, config, devices, folder, resume, eval_corpus)


def check_extras(config: TrainConfig, eval_corpus: bool) -> None:
    """Raises InputError where what is asked for beside training can't be had: to be told before a corpus is built."""
    if config.eval and eval_corpus:
        raise InputError("--eval holds out a share of the corpus, --eval-corpus brings other text: give one of them")
    if config.tensorboard:
        require_tensorboard()


def claim_folder(folder: Path, resume: bool) -> bool:
    """Whether the run in `folder` is to be resumed: as asked for, or because torchrun has started its ranks anew.

    Raises InputError where `folder` can't be written without harm: a file, or a used folder that isn't resumed.
    """
    if under_torchrun() and peers().goes_on(folder):
        resume = True
        if not folder.is_dir():
            raise InputError(
                f"--out {folder}, where this run was begun, isn't here: name a folder that all hosts share"
            )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not resume:
            raise InputError(
                f"--out {folder} already holds files: name another folder, or --resume to go on with its run"
            )
        if not (folder / "metrics.jsonl").is_file():
            raise InputError(
                f"--out {folder} holds files, but no run to resume (no metrics.jsonl): name another folder"
            )
    return resume


def _start_workers(
    model: Bert,
    corpus: Corpus,
    config: TrainConfig,
    devices: list[Any],
    out: Path | None,
    resume: bool,
    eval_corpus: Corpus | None,
) -> Run:
    """Trains in one process a device, and takes the trained weights over."""
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(devices),
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we tell what failed ourselves
    with tempfile.TemporaryDirectory(prefix="bertfast-") as name:
        job = Path(name)
        save_tensors(model.state_dict(), job / "model.safetensors", {})
        settings = {
            "model": dataclasses.asdict(model.config),
            "train": dataclasses.asdict(config),
            "corpus": [str(corpus.folder), corpus.part],
            "eval_corpus": eval_corpus and [str(eval_corpus.folder), eval_corpus.part],
            "out": None if out is None else str(out),
            "resume": resume,
            "quiet": not shows_progress(),
        }
        (job / "job.json").write_text(json.dumps(settings), encoding="utf-8")
        try:
            elastic_launch(launch, sys.executable)("-m", "bertfast.training.launch", name)
        except (SignalException, ChildFailedError) as end:
            if (job / "error").exists():
                raise InputError((job / "error").read_text(encoding="utf-8")) from None
            if (job / "stopped").exists():
                raise Stopped(int((job / "stopped").read_text(encoding="utf-8"))) from None
            if isinstance(end, SignalException):
                logger.info("interrupted")
                raise Stopped(end.sigval) from None
            raise ProcessLost(_in_words(end.failures)) from None
        model.load_state_dict(load_file(job / "trained.safetensors"))
        result = json.loads((job / "result.json").read_text(encoding="utf-8"))
    history = History()
    history.records = [Record(*record) for record in result["records"]]
    history.evaluations = [Evaluation(*evaluation) for evaluation in result["evaluations"]]
    return Run(model.eval(), corpus, config, history, devices, result["pairs_per_second"])


def _in_words(failures: Mapping[int, ProcessFailure]) -> str:
    """Which worker ended first, and how. Those that torchrun then stopped don't count."""
    rank, first = min(failures.items(), key=lambda failure: (failure[1].exitcode == -SIGTERM, failure[1].timestamp))
    how = f"was killed by {first.signal_name()}" if first.exitcode < 0 else "ended: its own message says why"
    return f"worker {rank} (process {first.pid}) {how}"


def _open(folder: str, part: list[int] | None) -> Corpus:
    corpus = Corpus.open(folder)
    return corpus.documents(*part) if part else corpus


def _work(job: Path) -> int:
    """One worker's life; the exit status."""
    settings = json.loads((job / "job.json").read_text(encoding="utf-8"))
    show_messages(settings["quiet"])
    try:
        config = TrainConfig(**settings["train"])
        model = Bert(BertConfig(**settings["model"]))
        model.load_state_dict(load_file(job / "model.safetensors"))
        corpus, eval_corpus = (each and _open(*each) for each in (settings["corpus"], settings["eval_corpus"]))
        out = None if settings["out"] is None else Path(settings["out"])
        world = torchrun_world(config)
        run = train(model, corpus, config, world, out, settings["resume"], eval_corpus)
        if is_main_process():
            save_tensors(run.model.state_dict(), job / "trained.safetensors", {})
            result = {
                "records": run.history.records,
                "evaluations": run.history.evaluations,
                "pairs_per_second": run.pairs_per_second,
            }
            (job / "result.json").write_text(json.dumps(result), encoding="utf-8")
    except (InputError, OSError) as error:
        (job / "error").write_text(str(error), encoding="utf-8")
        return 2
    except ProcessLost:  # whom, the caller sees
        return 1
    except Stopped as stopped:
        (job / "stopped").write_text(str(int(stopped.signal)), encoding="utf-8")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_work(Path(sys.argv[1])))
