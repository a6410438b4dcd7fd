"""Runs of several real processes under torchrun, of which one can be sent a signal at a certain step.

As a script it is one of those processes: `bertfast.pretrain`, but for the signals.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TINY = ["--hidden", "32", "--heads", "2", "--ffn", "64", "--batch-size", "16", "--max-len", "32", "--device", "cpu"]


def command(workers, *arguments, signals="", agent=("--standalone",)):
    """torchrun's command line. `signals`: RANK:STEP:NAME,... for the ranks of the first incarnation."""
    words = [sys.executable, "-m", "torch.distributed.run", *agent, "--nproc-per-node", workers]
    return [str(word) for word in [*words, __file__, signals, *arguments, *TINY]]


def torchrun(workers, *arguments, limit=120, **options):
    """The finished torchrun; none of its processes outlives it, even where it takes longer than `limit` seconds."""
    with started(command(workers, *arguments, **options)) as process:
        output, errors = process.communicate(timeout=limit)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextlib.contextmanager
def started(words, prefix=(), **options) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, all of which is killed at the end."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen([*prefix, *words], text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def weights(folder: Path) -> str:
    """The hash of a run's result."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> int:
    from bertfast import trainer
    from bertfast.pretrain import main

    planned = {}
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        planned = {tuple(each.split(":")[:2]): each.split(":")[2] for each in sys.argv[1].split(",") if each}
    learning_rate = trainer.learning_rate

    def signalled(step, config):
        if name := planned.get((os.environ["RANK"], str(step))):
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        return learning_rate(step, config)

    trainer.learning_rate = signalled
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
