"""A run directory belongs to one process at a time, and is refused if writing to it would destroy something."""

import os
import re
import signal

import pytest
from support.processes import SERVER

from bertfast.errors import InputError
from bertfast.training.run_directory import LOCK, RunDirectory, claimed


def hold(path, told):
    """Holds the claim until something is said, or the other end is closed."""
    with claimed(path, False):
        (path / "metrics.jsonl").touch()
        told.send("claimed")
        told.poll(None)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the claim to a folder, and the connection that has it go on."""
    connection, told = SERVER.Pipe()
    process = SERVER.Process(target=hold, args=(tmp_path / "run", told), daemon=True)
    process.start()
    told.close()
    assert connection.recv() == "claimed"
    yield process, connection
    process.kill()
    process.join()


@pytest.mark.parametrize("resume", [True, False])
def test_a_second_process_is_refused_in_one_line(tmp_path, holder, resume):
    path = tmp_path / "run"
    first, connection = holder
    with (
        pytest.raises(
            InputError, match=rf"^--out {re.escape(str(path))} is in use by process {first.pid} on \S+: wait"
        ),
        claimed(path, resume),
    ):
        pass
    connection.close()
    first.join()
    assert first.exitcode == 0
    with claimed(path, True) as directory:
        assert directory == RunDirectory(path, True)
    assert not (path / LOCK).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_claim_ends_with_its_process(tmp_path, holder, number):
    first, _ = holder
    os.kill(first.pid, number)
    first.join()
    assert first.exitcode
    with claimed(tmp_path / "run", True) as directory:
        assert directory.resumed


def test_a_refused_claim_does_not_disturb_the_holder(tmp_path):
    with claimed(tmp_path / "run", False):
        for _ in range(2):
            with pytest.raises(InputError, match="is in use by process"), claimed(tmp_path / "run", False):
                pass
        assert (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path, existed):
    path = tmp_path / "runs" / "run"
    if existed:
        path.mkdir(parents=True)
    with pytest.raises(InputError, match="no text"), claimed(path, False):
        raise InputError("no text")
    assert path.exists() is existed
    assert not existed or not list(path.iterdir())


def test_used_folders(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: name a folder"), claimed(tmp_path / "file", False):
        pass
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="already holds files: name another folder, or --resume"), claimed(used, False):
        pass
    with pytest.raises(InputError, match=r"no run to resume \(no metrics.jsonl\)"), claimed(used, True):
        pass
    assert [path.name for path in used.iterdir()] == ["thesis.tex"]


def test_a_run_that_writes_nothing_claims_nothing():
    with claimed(None, False) as directory:
        assert directory == RunDirectory()
