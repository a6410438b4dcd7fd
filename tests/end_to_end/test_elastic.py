"""Any number of workers, and any of them killed: the weights of one process that never stopped, bit for bit."""

import importlib
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import rank_processes
from support.torchrun import HANGS, TINY, command, kill, live, once_written, started, torchrun, wait_until, weights

pretrain = importlib.import_module("bertfast.pretrain").main


def forked(size, out, *arguments, event="", ways=""):
    """As `torchrun`, for what depends on the ranks alone."""
    words = [*map(str, arguments), "--out", str(out), *TINY]
    return rank_processes.run(size, out.with_name(f"{out.name} said"), live, event, ways, *words)


def test_one_two_four_and_eight_workers_by_resume(whole, tmp_path):
    """Two workers, stopped; then four, stopped; then eight, stopped; then one."""
    expected, arguments = whole
    out = tmp_path / "out"
    for workers, event in ((2, kill(1, 3, "TERM")), (4, kill(2, 6, "TERM")), (8, kill(5, 8, "TERM")), (1, "")):
        done = forked(workers, out, *arguments, "--resume", event=event)
        assert (done.status == 0) == (not event), done.err
    assert "step-00000009.safetensors, step 9" in done.err
    assert weights(out) == weights(expected)


def test_four_workers_in_more_shards(whole, tmp_path):
    """More shards, which take less memory, have bits of their own, again the same for any number of workers."""
    first, arguments = whole
    arguments = [*arguments, "--shards", 16]
    assert pretrain([str(word) for word in [*arguments, "--out", tmp_path / "one", *TINY]]) == 0
    done = forked(4, tmp_path / "four", *arguments)
    assert done.status == 0, done.err
    assert "4 CPU processes with 1 thread, deterministic over 16 shards" in done.err
    assert done.out.count("sentence pairs/sec") == 1
    assert weights(tmp_path / "four") == weights(tmp_path / "one") != weights(first)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_is_named_and_the_group_continues(whole, tmp_path, monkeypatch, killed):
    """torchrun restarts both ranks, without --resume, and in one case without --out."""
    expected, arguments = whole
    monkeypatch.chdir(tmp_path)
    arguments = [*arguments, "--checkpoint-every", 3, *(["--out", "runs/named"] if killed == 0 else [])]
    event = once_written(kill(killed, 8), "runs/*/checkpoints/step-00000003.safetensors")
    done = torchrun(2, *arguments, event=event, agent=("--standalone", "--max-restarts", "1"))
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^error: rank {1 - killed} lost rank {killed} \(host \S+, process \d+\)$", done.stderr, re.M)
    assert re.search(r"resuming from .*, step [36]$", done.stderr, re.M)
    [out] = Path("runs").iterdir()
    assert weights(out) == weights(expected)


@pytest.fixture(scope="module")
def in_buckets(whole, tmp_path_factory):
    """A run of two ranks whose steps stay on the device. All metrics are read at the end of every fourth step."""
    _, arguments = whole
    out, arguments = tmp_path_factory.mktemp("buckets") / "out", [*arguments, "--no-deterministic", "--steps", 40]
    arguments += ["--checkpoint-every", 4]
    done = forked(2, out, *arguments, ways="buckets")
    assert done.status == 0, done.err
    assert "one all-reduce a step" in done.err
    return out, arguments


@pytest.mark.parametrize(
    ("rank", "step", "last"), [(1, 4, 5), (0, 3, 3), pytest.param(0, 4, 5, marks=pytest.mark.long)]
)
def test_ranks_that_read_late_stop_together(in_buckets, tmp_path, rank, step, last):
    """All ranks learn of a signal one step after it came, or at once if that step waits, and stop after that step."""
    _, arguments = in_buckets
    out = tmp_path / "out"
    done = forked(2, out, *arguments, event=kill(rank, step, "TERM"), ways="buckets")
    assert done.status != 0
    assert f"stopped after step {last + 1}" in done.err
    assert [json.loads(line)["step"] for line in lines(out)] == [*range(last + 1)]


def test_ranks_that_read_late_resume_exactly(in_buckets, tmp_path):
    expected, arguments = in_buckets
    out = tmp_path / "out"
    forked(2, out, *arguments, event=kill(1, 22, "INT"), ways="buckets")
    assert len(lines(out)) == 24
    done = forked(2, out, *arguments, "--resume", ways="buckets")
    assert done.status == 0, done.err
    assert weights(out) == weights(expected)
    assert lines(out) == lines(expected)


def test_a_checkpoint_due_by_one_ranks_clock_is_written_by_all(in_buckets, tmp_path):
    expected, arguments = in_buckets
    out = tmp_path / "out"
    done = forked(2, out, *arguments, "--keep-checkpoints", 40, ways="buckets, overdue")
    assert done.status == 0, done.err
    assert len([*(out / "checkpoints").iterdir()]) > 15
    assert weights(out) == weights(expected)
    assert lines(out) == lines(expected)


def test_ranks_that_read_late_stop_together_at_a_non_finite_loss(in_buckets, tmp_path):
    _, arguments = in_buckets
    done = forked(2, tmp_path / "out", *arguments, "--lr", 1e30, ways="buckets")
    assert done.status != 0
    assert re.search(r"at step \d+ the loss is nan", done.err)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def lines(out):
    return (out / "metrics.jsonl").read_text().splitlines()


def test_a_refused_folder_stays_refused(whole, tmp_path):
    """A restart must not mistake it for its own."""
    expected, arguments = whole
    done = torchrun(1, *arguments, "--out", expected, agent=("--standalone", "--max-restarts", "1"))
    assert done.returncode != 0
    assert done.stderr.count("already holds files") == 2


def test_a_killed_worker_ends_the_short_form(whole, tmp_path):
    _, arguments = whole
    out = tmp_path / "out"
    words = ["-m", "bertfast.pretrain", *arguments, "--steps", 100000, "--gpus", 2, "--out", out, *TINY]
    with started([sys.executable, *map(str, words)]) as process:
        wait_until(lambda: (out / "metrics.jsonl").exists() and lines(out), process)
        victim = children(process.pid)[1]
        subprocess.run(["kill", "-KILL", str(victim)], check=True)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == f"error: worker 1 (process {victim}) was killed by SIGKILL"
    assert "Traceback" not in errors


def children(process):
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.long
def test_killed_at_any_instant(whole, tmp_path):
    """25 times, one of two ranks at a random instant of its life, from its start on."""
    expected, arguments = whole
    generator = random.Random(0)
    agent = ("--standalone", "--max-restarts", "1", "--monitor-interval", "0.1")
    arguments = [*arguments, "--checkpoint-every", 1]
    started_at = time.monotonic()
    assert torchrun(2, *arguments, "--out", tmp_path / "undisturbed").returncode == 0
    duration = time.monotonic() - started_at
    for number in range(25):
        out = tmp_path / str(number)
        with started(command(2, *arguments, "--out", out, agent=agent)) as process:
            time.sleep(generator.uniform(0, duration))
            ranks = children(process.pid)
            if ranks:
                subprocess.run(["kill", "-KILL", str(generator.choice(ranks))], check=False)
            _, errors = process.communicate(timeout=HANGS)
        assert process.returncode == 0, errors
        assert weights(out) == weights(expected)
