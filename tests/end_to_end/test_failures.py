"""Runs that are killed, get signals or run out of disk: what they leave, and that they resume exactly."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.torch import load_file
from support.command_line import metrics
from support.processes import TINY, Fault, contents, run, start, status, write_texts

from bertfast.hub.state_dict import export_state_dict
from bertfast.hub.transformers import load_pretrained

STEPS, EVERY = 12, 4


class Story(NamedTuple):
    """An undisturbed run."""

    options: list[object]
    whole: Path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERTFAST_CACHE", str(folder / "cache"))
        options = ["--corpus", write_texts(folder / "texts.txt"), "--eval", "--steps", STEPS, "--deterministic", *TINY]
        options += ["--checkpoint-every", EVERY, "--optimizer", "muon", "--weight-decay", 0.1]
        done = run([*options, "--out", folder / "whole"], folder / "log")
        assert done.status == 0, done.err
        yield Story(options, folder / "whole")


def resumes_exactly(story: Story, out: Path) -> str:
    """Resumes the run in `out` and compares every byte that it leaves. Returns its messages."""
    done = run([*story.options, "--out", out, "--resume"], out.with_name("resumed"))
    assert done.status == 0, done.err
    assert contents(out) == contents(story.whole)
    return done.err


# The call at which SIGKILL ends the process. A step samples 8 shards. The files that are renamed into place, with two
# syncs each, are run.json, the checkpoints of the steps 4, 8 and 12, then the model.
INSTANTS = {
    "sampling": Fault("bertfast.sampling.sampler:Sampler.packed_within", 6 * 8 + 3),
    "gradients are there": Fault("bertfast.training.optimizer:Optimizer.step", 7),
    "before the second checkpoint's name": Fault("pathlib:Path.replace", 3),
    "after the second checkpoint's name": Fault("pathlib:Path.replace", 3, after=True),
}
MORE_INSTANTS = {
    "before anything": Fault("bertfast.reporting.appended_file:cut_back", 1),
    "before run.json": Fault("pathlib:Path.replace", 1),
    "after run.json": Fault("pathlib:Path.replace", 1, after=True),
    "sampling the first": Fault("bertfast.sampling.sampler:Sampler.packed_within", 1),
    "sampling the last": Fault("bertfast.sampling.sampler:Sampler.packed_within", STEPS * 8),
    "the first step": Fault("bertfast.training.optimizer:Optimizer.step", 1, after=True),
    "the step of a checkpoint": Fault("bertfast.training.optimizer:Optimizer.step", 8, after=True),
    "the last step": Fault("bertfast.training.optimizer:Optimizer.step", STEPS, after=True),
    "before a line of metrics": Fault("bertfast.reporting.appended_file:AppendedFile.write", 5),
    "after a line of metrics": Fault("bertfast.reporting.appended_file:AppendedFile.write", 5, after=True),
    "an evaluation": Fault("bertfast.training.trainer:evaluate", 1),
    "copying": Fault("bertfast.training.checkpoint:_state", 2),
    "copied": Fault("bertfast.training.checkpoint:_state", 2, after=True),
    "the first checkpoint begins": Fault("bertfast.training.checkpoint:_write", 1),
    "the second checkpoint begins": Fault("bertfast.training.checkpoint:_write", 2),
    "the checkpoint is not synced": Fault("bertfast.files:sync", 2 * 2 + 1),
    "the checkpoint is synced": Fault("bertfast.files:sync", 2 * 2 + 1, after=True),
    "the folder is not synced": Fault("bertfast.files:sync", 2 * 2 + 2),
    "the folder is synced": Fault("bertfast.files:sync", 2 * 2 + 2, after=True),
    "before the first checkpoint's name": Fault("pathlib:Path.replace", 2),
    "before the last checkpoint's name": Fault("pathlib:Path.replace", 4),
    "after the last checkpoint's name": Fault("pathlib:Path.replace", 4, after=True),
    "before the model's name": Fault("pathlib:Path.replace", 5),
    "the tokenizer": Fault("bertfast.data.tokenizing.tokenizer:Tokenizer.save", 1),
    "the picture": Fault("bertfast.training.run:draw_losses", 1),
}


@pytest.mark.parametrize(
    "instant", [*INSTANTS, *(pytest.param(instant, marks=pytest.mark.long) for instant in MORE_INSTANTS)]
)
def test_killed(story: Story, tmp_path: Path, instant: str) -> None:
    out = tmp_path / "out"
    done = run([*story.options, "--out", out], tmp_path / "log", (INSTANTS | MORE_INSTANTS)[instant])
    assert done.status == 128 + signal.SIGKILL, done.err
    resumes_exactly(story, out)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(25))
def test_killed_at_a_random_time(story: Story, tmp_path: Path, seed: int) -> None:
    """Again and again, ever later, until it ends before it is killed."""
    generator = random.Random(seed)
    out = tmp_path / "out"
    kills = 0
    while True:
        process = start([*story.options, "--out", out, "--resume"], tmp_path / "log")
        process.join(generator.uniform(0, 1 + kills))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0, (tmp_path / "log.err").read_text()
    assert contents(out) == contents(story.whole)
    print(f"{kills} kills")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_the_step(story: Story, tmp_path: Path, number: signal.Signals) -> None:
    """Even if it comes twice, as SIGHUP does when a terminal closes. A second Ctrl-C would interrupt at once."""
    out = tmp_path / "out"
    place = "bertfast.training.optimizer:Optimizer.step"
    faults = [Fault(place, 6, what=number)]
    if number != signal.SIGINT:
        faults.append(Fault(place, 6, after=True, what=number))
    done = run([*story.options, "--out", out], tmp_path / "log", *faults)
    assert done.status == 128 + (signal.SIGTERM if number == signal.SIGHUP else number)
    kept = out / "checkpoints" / "step-00000007.safetensors"
    assert f"\nstopped after step 7, saved in {kept}: continue with --resume\n" in done.err
    assert "Traceback" not in done.err
    weights = export_state_dict(load_pretrained(out).model)  # the model is saved as well
    saved = load_file(kept)
    assert np.array_equal(weights["bert.pooler.dense.weight"], saved["model.pooler.weight"])
    assert f"| steps | 7 of {STEPS}, with batches" in (out / "README.md").read_text()
    assert f"resuming from {kept}, step 7" in resumes_exactly(story, out)


def test_a_signal_in_the_last_step_does_not_stop_the_run(story: Story, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fault = Fault("bertfast.training.optimizer:Optimizer.step", STEPS, what=signal.SIGTERM)
    assert run([*story.options, "--out", out], tmp_path / "log", fault).status == 0
    assert contents(out) == contents(story.whole)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log whose errors are read while they are written."""
    os.mkfifo(tmp_path / "log.err")
    return tmp_path / "log"


def workers_of(process: BaseProcess) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child) for child in children if b"bertfast.training.workers" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGTERM, "parent"),
        pytest.param(signal.SIGINT, "parent", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "one worker", marks=pytest.mark.long),
    ],
)
def test_a_signal_to_several_workers(
    story: Story, tmp_path: Path, log: Path, number: signal.Signals, whom: str
) -> None:
    """Sent after the first evaluation's line, when the workers are in the middle of the run."""
    out = tmp_path / "out"
    process = start([*story.options, "--steps", 1000, "--gpus", 2, "--out", out], log)
    with log.with_suffix(".err").open() as errors:
        said = []
        for line in errors:
            said.append(line)
            if "held-out text" in line:
                pid = process.pid if whom == "parent" else workers_of(process)[-1]
                assert pid is not None
                os.kill(pid, number)
                break
        said.append(errors.read())
        err = "".join(said)
    assert status(process) == 128 + number, err
    assert "Traceback" not in err
    told = re.search(r"stopped after step (\d+), saved in (\S+): continue with --resume", err)
    assert told, err
    assert Path(told[2]).is_file()
    assert len([line for line in metrics(out) if "lr" in line]) == int(told[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_an_ignored_hangup_ends_nothing(story: Story, tmp_path: Path, log: Path, workers: int) -> None:
    """As under nohup, whose command inherits the ignored signal."""
    out = tmp_path / "out"
    pictures = ("loss.svg", "loss.png")  # which the workers, processes of their own, do draw
    process = start([*story.options, "--gpus", workers, "--out", out], log, ignored=[signal.SIGHUP])
    with log.with_suffix(".err").open() as errors:
        for line in errors:
            if "deterministic over" in line:  # the workers are there
                assert process.pid is not None
                os.kill(process.pid, signal.SIGHUP)
                break
        else:
            pytest.fail("no line says that the workers are there")
        err = errors.read()
    assert status(process) == 0, err
    ours, expected = contents(out), contents(story.whole)
    assert ours.keys() == expected.keys()
    assert [name for name in ours if ours[name] != expected[name] and name not in pictures] == []


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    """No traceback, whenever it comes; here as the import of torch begins."""
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "bertfast.pretrain"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == -signal.SIGINT  # a shell says 130
    assert done.stderr == ""


# --- runs that can't be resumed exactly


def test_another_batch_size(story: Story, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = Fault("bertfast.training.optimizer:Optimizer.step", 6, what=signal.SIGTERM)
    assert run([*story.options, "--out", out], tmp_path / "log", stopped).status == 128 + signal.SIGTERM
    before = contents(out)
    other = [*story.options, "--out", out, "--batch-size", 8, "--resume"]
    done = run(other, tmp_path / "log")
    assert done.status == 2
    said = done.err[done.err.index("error: ") :].splitlines()
    assert said[0].startswith(f"error: {out}/checkpoints/step-00000007.safetensors cannot be resumed exactly: ")
    assert "--inexact to resume all the same" in said[0]
    assert said[1:] == ["  --batch-size: 16 -> 8"]
    assert contents(out) == before
    done = run([*other, "--inexact"], tmp_path / "log")
    assert done.status == 0, done.err
    assert "warning: the result will differ from that of the run that wrote" in done.err
    assert "\n  --batch-size: 16 -> 8\n" in done.err
    steps = [line["step"] for line in metrics(out) if "lr" in line]
    assert steps == list(range(STEPS))


def test_another_optimizer(story: Story, tmp_path: Path) -> None:
    """Its state is not in the checkpoint, so --inexact does not help."""
    out = tmp_path / "out"
    stopped = Fault("bertfast.training.optimizer:Optimizer.step", 6, what=signal.SIGTERM)
    assert run([*story.options, "--out", out], tmp_path / "log", stopped).status == 128 + signal.SIGTERM
    before = contents(out)
    done = run([*story.options, "--out", out, "--optimizer", "adamw", "--resume", "--inexact"], tmp_path / "log")
    assert done.status == 2
    said = done.err[done.err.index("error: ") :].splitlines()
    assert "is a checkpoint of another model or optimizer (exp_avg.layers.0.query.weight is missing)" in said[0]
    assert said[1:] == ["  --optimizer: muon -> adamw", "  --muon-lr: 0.02 -> unknown"]
    assert contents(out) == before


# --- disks


def test_a_disk_that_is_full_for_a_while(story: Story, tmp_path: Path) -> None:
    """One warning, although two checkpoints failed."""
    out = tmp_path / "out"
    full = Fault("bertfast.training.checkpoint:_write", 1, largest_file=20_000)
    free = Fault("bertfast.training.checkpoint:_write", 3, largest_file=-1)
    done = run([*story.options, "--out", out], tmp_path / "log", full, free)
    assert done.status == 0, done.err
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: the checkpoint {out}/checkpoints/step-00000004.safetensors can't be written: File too large; "
        "training continues, and the next one will be tried"
    ]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000012.safetensors"]
    assert (out / "metrics.jsonl").read_bytes() == (story.whole / "metrics.jsonl").read_bytes()
    assert (out / "model.safetensors").read_bytes() == (story.whole / "model.safetensors").read_bytes()


def test_a_disk_that_stays_full(story: Story, tmp_path: Path) -> None:
    """The earlier checkpoint stays intact, files that fit are written, and the error names the others."""
    out = tmp_path / "out"
    room = (story.whole / "model.safetensors").stat().st_size
    done = run(
        [*story.options, "--out", out],
        tmp_path / "log",
        Fault("bertfast.training.checkpoint:_write", 2, largest_file=room),
    )
    assert done.status == 2, done.err
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith(f"error: the checkpoint {out}/checkpoints/step-00000012.safetensors can't be written: File")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004.safetensors"]
    assert (out / "metrics.jsonl").read_bytes() == (story.whole / "metrics.jsonl").read_bytes()
    assert (out / "model.safetensors").read_bytes() == (story.whole / "model.safetensors").read_bytes()
    assert "step-00000004.safetensors, step 4" in resumes_exactly(story, out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_small_disk(story: Story, tmp_path: Path, small_disk: Path) -> None:
    """A real one: it fills up after the first checkpoint."""
    out = small_disk / "out"
    checkpoint = (story.whole / "checkpoints" / "step-00000012.safetensors").stat().st_size
    (small_disk / "ballast").write_bytes(bytes(4 * 1024 * 1024 - checkpoint * 3 // 2))
    done = run([*story.options, "--out", out], tmp_path / "log")
    assert done.status == 2, done.err
    assert "Traceback" not in done.err
    assert done.err.count("warning: the checkpoint ") == 1
    assert done.err.splitlines()[-1].startswith("error: the checkpoint ")
    assert "No space left on device" in done.err.splitlines()[-1]
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004.safetensors"]
    (small_disk / "ballast").unlink()
    assert "step-00000004.safetensors, step 4" in resumes_exactly(story, out)


@pytest.mark.parametrize("room", [0.5, 1.5])
def test_a_small_disk_for_temporary_files(
    story: Story, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    """It has room for the one copy of the model that the workers read; if not, the run ends before it trains."""
    model = (story.whole / "model.safetensors").stat().st_size
    (small_disk / "ballast").write_bytes(bytes(4 * 1024 * 1024 - int(room * model)))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    command = [*story.options, "--gpus", "2", "--export", "sentence-transformers", "--out", tmp_path / "out"]
    done = run(command, tmp_path / "log")
    if room > 1:
        assert done.status == 0, done.err
        assert (tmp_path / "out" / "modules.json").exists()
    else:
        assert done.status == 2
        assert f"error: {small_disk}/bertfast-" in done.err.splitlines()[-1]
        assert "No space left on device" in done.err.splitlines()[-1]
        assert done.err.endswith("with TMPDIR, name a folder that has room for the workers' model\n")
        assert not (tmp_path / "out").exists()


def test_a_disk_that_may_not_be_written(story: Story, tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = run([*story.options, "--out", small_disk / "out"], tmp_path / "log")
    assert done.status == 2
    assert done.err.splitlines()[-1] == f"error: {small_disk}/out: Read-only file system"
    assert "Traceback" not in done.err
