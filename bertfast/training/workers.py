"""Trains in several processes of this host: starts them, and is what they run.

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

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bertfast.distributed.devices import torchrun_world
from bertfast.errors import InputError, ProcessLost, Stopped, in_one_line
from bertfast.hub.transformers import load_pretrained
from bertfast.log import show_messages, shows_progress
from bertfast.reporting.metrics import History
from bertfast.reporting.run_info import RunInfo
from bertfast.torchrun import is_main_process
from bertfast.training.job import TrainingJob
from bertfast.training.run import Run, base_of
from bertfast.training.run_directory import RunDirectory
from bertfast.training.trainer import Trainer

logger = logging.getLogger(__name__)


def train_in_workers(directory: RunDirectory, job: TrainingJob, devices: list[torch.device]) -> Run:
    """Trains in one process per device, and loads the trained weights into the job's model."""
    model, corpus, config, eval_corpus = job
    with tempfile.TemporaryDirectory(prefix="bertfast-") as name:
        folder = Path(name)
        out = directory.path or folder / "run"
        base_model = base_of(model)
        job.write(folder)
        place = {"out": str(out), "resume": directory.resumed, "quiet": not shows_progress()}
        (folder / "place.json").write_text(json.dumps(place), encoding="utf-8")
        with _worker_errors(folder):
            _run_workers(folder, len(devices))
        trained = load_pretrained(out).model
        model.load_state_dict(trained.state_dict())
        model.trained_len = trained.trained_len
        config = dataclasses.replace(config, steps=RunInfo.read(out).train.steps)
        history = History(out / "metrics.jsonl", config.steps)
        history.complete()
        pairs_per_second = json.loads((folder / "pairs_per_second.json").read_text(encoding="utf-8"))
    if config.eval:
        corpus, eval_corpus = corpus.split(config.eval_share)
    return Run(model.eval(), corpus, config, history, devices, pairs_per_second, eval_corpus, base_model)


def _run_workers(folder: Path, count: int) -> None:
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
    elastic_launch(launch, sys.executable)("-m", "bertfast.training.workers", str(folder))


@contextlib.contextmanager
def _worker_errors(folder: Path) -> Iterator[None]:
    """Raises the error that ended the workers as if it had been raised here."""
    try:
        yield
    except (SignalException, ChildFailedError) as end:
        if (folder / "error").exists():
            raise InputError((folder / "error").read_text(encoding="utf-8")) from None
        if (folder / "stopped").exists():
            raise Stopped(int((folder / "stopped").read_text(encoding="utf-8"))) from None
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


def _work(folder: Path) -> int:
    """Runs one worker and returns its exit status."""
    place = json.loads((folder / "place.json").read_text(encoding="utf-8"))
    show_messages(place["quiet"])
    try:
        job = TrainingJob.read(folder)
        directory = RunDirectory(Path(place["out"]), place["resume"])
        run = Trainer(job, torchrun_world(job.config), directory).train()
        if is_main_process():
            (folder / "pairs_per_second.json").write_text(json.dumps(run.pairs_per_second), encoding="utf-8")
    except ProcessLost:  # the caller reports which worker
        return 1
    except Exception as error:
        if (line := in_one_line(error)) is None:
            raise
        (folder / "error").write_text(line, encoding="utf-8")
        return 2
    except Stopped as stopped:
        (folder / "stopped").write_text(str(int(stopped.signal)), encoding="utf-8")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_work(Path(sys.argv[1])))
