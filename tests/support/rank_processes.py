"""The ranks of a job as torchrun starts them, but for the seconds that torchrun's and their imports take."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from support.processes import SERVER, Done, running, settle, status
from support.torchrun import HANGS
from torch.distributed import TCPStore


def run(size: int, folder: Path, function: Callable[..., int], *arguments: Any) -> Done:
    """`function(*arguments)`, which returns an exit status, on each of `size` ranks, whose output goes to `folder`.

    As under torchrun, a rank that fails ends the others. The status is 0, or that of the first to fail; the output is
    that of one rank after the other.
    """
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    job = {
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": store.host,
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    folder.mkdir(exist_ok=True)
    logs = [folder / f"rank{rank}" for rank in range(size)]
    ranks = []
    for rank, log in enumerate(logs):
        names = {**job, "RANK": rank, "LOCAL_RANK": rank}
        environment = {**os.environ, **{name: str(value) for name, value in names.items()}}
        ranks.append(SERVER.Process(target=_live, args=(log, environment, function, arguments)))
    first = 0
    with running(ranks):
        left = {rank.sentinel: rank for rank in ranks}
        while left:
            ended = wait(list(left), HANGS)
            assert ended, "they hang"
            for sentinel in ended:
                found = status(left.pop(sentinel))
                first = first or found
            if first:
                for rank in left.values():
                    rank.terminate()
    return Done(first, *("".join(log.with_suffix(each).read_text() for log in logs) for each in (".out", ".err")))


def _live(log: Path, environment: dict[str, str], function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    settle(log, environment)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))
