"""Atomic writes, and locks that end with their holder."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.messages import listening
from support.refusal import refusal
from support.torchrun import HANGS

from bertfast.errors import InputError, in_one_line
from bertfast.files import expanded, locked, named_file, save_tensors, sync, whole_file


def test_a_file_is_replaced_at_the_end(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    for content in ("one", "other"):
        with whole_file(path) as partial:
            partial.write_text(content)
            assert partial.parent == tmp_path and partial.suffix == ".safetensors" and partial.name.startswith(".")
            assert path.exists() is (content == "other")
        assert path.read_text() == content
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", ["as it was", None])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, before: str | None, error: BaseException):
    path = tmp_path / "run.json"
    if before is not None:
        path.write_text(before)
    with pytest.raises(type(error)), whole_file(path) as partial:
        partial.write_text("half")
        raise error
    assert [each.read_text() for each in tmp_path.iterdir()] == ([] if before is None else [before])


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path):
    (tmp_path / ".run.bertfast-partial.json").write_text("a long text that was left")
    with whole_file(tmp_path / "run.json") as partial:
        partial.write_text("new")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"run.json": "new"}


@pytest.mark.parametrize("name", ["run.partial.json", "run.json.partial", "run.partial", "partial.run.json"])
def test_a_users_own_file_stays(tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine")
    with whole_file(tmp_path / "run.json") as partial:
        partial.write_text("new")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"run.json": "new", name: "mine"}


def test_what_is_no_file_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").touch()
    assert named_file("~/a") == tmp_path / "a"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(named_file, tmp_path / "nowhere") == f"no such file: {tmp_path}/nowhere"
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert refusal(named_file, path) == f"{path} is a folder, pipe or device: name a file"


def test_tensors(tmp_path: Path):
    tensors = {"a": torch.rand(3, 5), "b": torch.zeros(0, dtype=torch.bfloat16), "c": torch.tensor(7)}
    save_tensors(tensors, tmp_path / "t.safetensors", {"format": "pt"})
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], each) and found[name].dtype == each.dtype for name, each in tensors.items())
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.fixture
def umask() -> Iterator[int]:
    """An unusual one."""
    before = os.umask(0o026)
    yield 0o026
    os.umask(before)


def test_tensors_are_as_readable_as_any_file(tmp_path: Path, umask: int):
    save_tensors({"a": torch.rand(1)}, tmp_path / "t.safetensors", {})
    (tmp_path / "any").touch()
    assert (tmp_path / "t.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode
    assert os.umask(umask) == umask


def test_tensors_that_cannot_be_written_are_one_line(tmp_path: Path):
    path = tmp_path / "none" / "t.safetensors"
    with pytest.raises(InputError) as raised:
        save_tensors({"a": torch.rand(1)}, path, {})
    assert str(raised.value).startswith(f"{path} can't be written: ")
    assert list(tmp_path.iterdir()) == []


def test_a_leading_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expanded("~/texts") == Path("/home/somebody/texts")
    assert expanded(Path("~")) == Path("/home/somebody")
    for path in ("texts/~", "~nobody-of-this-name/texts", "/texts", "texts"):
        assert expanded(path) == Path(path)


def test_a_waiting_process_names_the_holder(tmp_path: Path):
    lock, waits, order, said = tmp_path / "lock", threading.Event(), [], []

    def hear(line: str) -> None:
        said.append(line)
        waits.set()

    def second() -> None:
        with listening(hear), locked(lock, "building this corpus"):
            order.append("second")

    with locked(lock, "unused"):
        assert lock.read_text() == f"process {os.getpid()} on {platform.node()}"
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(HANGS)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert said == [f"waiting for process {os.getpid()} on {platform.node()}, which is building this corpus"]
    assert not lock.exists()


def test_no_update_is_lost(tmp_path: Path):
    """Of a number that several read, increment and write."""
    number = tmp_path / "number"
    number.write_text("0")

    def increment() -> None:
        for _ in range(25):
            with locked(tmp_path / "lock", "incrementing"):
                found = int(number.read_text())
                os.sched_yield()
                number.write_text(str(found + 1))

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number.read_text() == "100"


def test_an_error_releases_the_lock(tmp_path: Path, said: list[str]):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "building"):
            raise ZeroDivisionError
    assert said == []
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("held", [False, True])
def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool):
    """`held`: it only refuses to wait for another process."""

    def flock(file: object, operation: int) -> None:
        if held and operation & fcntl.LOCK_NB:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError) as raised, locked(tmp_path / "lock", "building"):
        pass
    assert in_one_line(raised.value) == f"{tmp_path}/lock: {os.strerror(errno.ENOSYS)}"


def test_a_folder_that_cannot_be_synced_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) as raised:
        sync(tmp_path)
    assert in_one_line(raised.value) == f"{tmp_path}: {os.strerror(errno.EINVAL)}"


def test_an_error_within_the_lock_is_not_the_locks(tmp_path: Path):
    with pytest.raises(OSError) as raised, locked(tmp_path / "lock", "building"):
        os.fstat(-1)
    assert raised.value.filename is None


DIES = """
import os, signal, sys
from pathlib import Path
from bertfast.files import locked
with locked(Path(sys.argv[1]), "building"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_holder_releases_it(tmp_path: Path, said: list[str]):
    """The file still names the killed process, until the next holder replaces it."""
    process = subprocess.Popen([sys.executable, "-c", DIES, tmp_path / "lock"])
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "lock").read_text().startswith(f"process {process.pid} on ")
    with locked(tmp_path / "lock", "building"):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {platform.node()}"
    assert said == []
