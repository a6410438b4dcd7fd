"""Several CPU workers compared with one process on the same cores, and the cost of a fixed order of sums."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys

import pytest
import torch
from bench_step import CPU, NOTEBOOK, PRECISIONS, our_step
from sizes import sized

from bertfast.distributed.process_group import joined
from bertfast.distributed.world import SHARDS, make_world

STEPS = sized(2, smoke=1)  # per call


class Workers:
    """`size` processes with one thread each; a call lets them train steps together."""

    def __init__(self, size, **settings):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        group |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, repr(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **group, "RANK": str(rank)},
            )
            for rank in range(size)
        ]

    def __call__(self):
        for process in self._processes:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout.readline() == "done\n"

    def close(self):
        for process in self._processes:
            process.communicate(timeout=60)


def work(settings):
    """The main function of a worker: trains steps for each line of standard input."""
    config = dataclasses.replace(NOTEBOOK, **settings)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    world = make_world(config, [CPU] * size, [CPU], rank)
    with joined(world, {}, config.timeout):
        step = our_step(config, world=world)
        for _ in sys.stdin:
            for _ in range(STEPS):
                step()
            print("done", flush=True)


@pytest.fixture
def workers(wikitext):
    """workers(size, **settings) -> Workers, until the benchmark's end."""
    with contextlib.ExitStack() as stack:
        yield lambda size, **settings: stack.enter_context(contextlib.closing(Workers(size, **settings)))


def one_process(**settings):
    step = our_step(dataclasses.replace(NOTEBOOK, **settings))
    return lambda: [step() for _ in range(STEPS)]


def test_two_workers_and_one_process(compare, workers):
    """Both deterministic, on as many cores as the process has threads here."""
    threads = torch.get_num_threads()
    if threads < 2 or threads & (threads - 1):
        pytest.skip(f"{threads} threads, which as many workers can't share evenly")
    compare(
        f"training step, notebook's size, {threads} workers with a thread each",
        workers(threads, deterministic=True),
        {f"one process, {threads} threads": one_process(deterministic=True)},
        items=STEPS * NOTEBOOK.batch_size,
        unit="pairs",
        rounds=9,
    )


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", sized([1, 2, 4], smoke=[1, 2]))
def test_cost_of_a_fixed_order(compare, workers, size, precision):
    def steps(**settings):
        made = workers if size > 1 else lambda _, **settings: one_process(**settings)
        return made(size, precision=precision, **settings)

    compare(
        f"training step, notebook's size, {precision}, {size} process{'es' * (size > 1)}, deterministic as by default",
        steps(),
        {
            "plain all-reduce" if size > 1 else "not deterministic": steps(deterministic=False),
            f"deterministic over {SHARDS} shards": steps(deterministic=True),
        },
        items=STEPS * NOTEBOOK.batch_size,
        unit="pairs",
        rounds=9,
        bars={"plain all-reduce" if size > 1 else "not deterministic": 0.95},
    )


if __name__ == "__main__":
    import ast

    work(ast.literal_eval(sys.argv[1]))
