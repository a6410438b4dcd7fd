"""Runs of several real processes under torchrun, to one of which something happens at a certain step.

As a script it is one of those processes: `bertfast.pretrain`, but for what happens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TINY = ["--hidden", "32", "--heads", "2", "--ffn", "64", "--batch-size", "16", "--max-len", "32", "--device", "cpu"]
HANGS = 600  # seconds after which a process that hasn't ended hangs, on any machine


def command(workers, *arguments, event="", ways="", agent=("--standalone",)):
    """torchrun's command line. `event`, RANK:STEP:COMMAND, has a rank of the first incarnation call the shell.

    `ways`: "buckets" for steps as on GPUs, called instead of captured; "overdue" for a clock of rank 0 by which a
    checkpoint is due after each step.
    """
    words = [sys.executable, "-m", "torch.distributed.run", *agent, "--nproc-per-node", workers]
    return [str(word) for word in [*words, __file__, event, ways, *arguments, *TINY]]


def torchrun(workers, *arguments, **options):
    """The finished torchrun; none of its processes outlives it."""
    with started(command(workers, *arguments, **options)) as process:
        output, errors = process.communicate(timeout=HANGS)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextlib.contextmanager
def started(words, prefix=(), **options) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, all of which is killed at the end. torchrun chooses its ranks' threads."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, **options}
    process = subprocess.Popen([*prefix, *words], text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until the condition holds, which the process, still alive, brings about."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.05)


def weights(folder: Path) -> str:
    """The hash of a run's result."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def kill(rank: int, step: int, name: str = "KILL") -> str:
    """The event of a rank that gets a signal."""
    return f"{rank}:{step}:kill -{name} $PPID"


def once_written(event: str, file: Path | str) -> str:
    """The event, but not before there is such a file (a glob); checkpoints are written beside training."""
    rank, step, words = event.split(":", 2)
    return f"{rank}:{step}:until ls {file} >/dev/null 2>&1; do sleep 0.05; done; {words}"


def live(event: str, ways: str, *arguments: str) -> int:
    """One of the processes: see `command`."""
    from support.graphs import Called

    from bertfast.distributed import world
    from bertfast.pretrain import main
    from bertfast.training import step as step_module
    from bertfast.training import trainer

    rank, step, words = event.split(":", 2) if event else ("", "", "")
    checkpoint_due = trainer.checkpoint_due

    def eventful(now, config):
        if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], str(now)) == (rank, "0", step):
            subprocess.run(words, shell=True, check=True)
        return checkpoint_due(now, config)

    trainer.checkpoint_due = eventful
    if "buckets" in ways:
        world._no_graph = lambda world: None
        step_module.Graphs = lambda device, each_first: Called()
    if "overdue" in ways and os.environ["RANK"] == "0":
        trainer.CHECKPOINT_SECONDS = 0
    return main(arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # started by its path, it has its own folder there alone
    sys.exit(live(*sys.argv[1:]))
