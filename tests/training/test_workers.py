"""How a worker tells its caller what ended it. tests/end_to_end starts whole workers."""

from __future__ import annotations

import json

import pytest

from bertfast.errors import InputError
from bertfast.training import workers


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("--steps 0: too few"), "--steps 0: too few"),
        (FileNotFoundError(2, "No such file or directory", "x"), "x: No such file or directory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            "there is too little memory for this: choose a smaller batch or model",
        ),
    ],
)
@pytest.mark.usefixtures("restored_logger")
def test_the_caller_gets_a_line(tmp_path, monkeypatch, error, line):
    def fail(folder):
        raise error

    (tmp_path / "place.json").write_text(json.dumps({"out": "out", "resume": False, "quiet": True}))
    monkeypatch.setattr(workers.TrainingJob, "read", fail)
    assert workers._work(tmp_path) == 2
    assert (tmp_path / "error").read_text() == line


@pytest.mark.usefixtures("restored_logger")
def test_a_programming_error_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "place.json").write_text(json.dumps({"out": "out", "resume": False, "quiet": True}))
    monkeypatch.setattr(workers.TrainingJob, "read", lambda folder: {}["steps"])
    with pytest.raises(KeyError):
        workers._work(tmp_path)
    assert not (tmp_path / "error").exists()
