"""This process's place in a torchrun job. test_elastic.py starts real ones."""

from __future__ import annotations

import os

import pytest

from bertfast import torchrun
from bertfast.errors import InputError

# What torchrun sets for the second process of the second of two hosts, and for a group that was restarted once.
JOB = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "1",
    "TORCHELASTIC_RUN_ID": "none",
}


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in JOB:
        monkeypatch.delenv(name, raising=False)


def place() -> tuple[object, ...]:
    return (
        *(torchrun.under_torchrun(), torchrun.rank(), torchrun.world_size(), torchrun.local_rank()),
        *(torchrun.local_world_size(), torchrun.restarts(), torchrun.is_main_process()),
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], (False, 0, 1, 0, 1, 0, True)),
        (list(JOB), (True, 3, 4, 1, 2, 1, False)),
        (["RANK", "WORLD_SIZE"], (True, 3, 4, 3, 4, 0, False)),  # another launcher, on one host
        (["WORLD_SIZE"], (False, 0, 1, 0, 1, 0, True)),
        (["RANK"], (False, 0, 1, 0, 1, 0, True)),
    ],
)
def test_a_place(monkeypatch, names, expected):
    for name in names:
        monkeypatch.setenv(name, JOB[name])
    assert place() == expected


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"])
def test_what_is_no_number_is_named(monkeypatch, name):
    for each, value in JOB.items():
        monkeypatch.setenv(each, "x" if each == name else value)
    with pytest.raises(InputError, match=f"the environment variable {name} is 'x', no count"):
        place()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MASTER_ADDR", None, "RANK and WORLD_SIZE are set, but not MASTER_ADDR: unset them, or start with torchrun"),
        ("MASTER_PORT", "", "RANK and WORLD_SIZE are set, but not MASTER_PORT: unset them, or start with torchrun"),
        ("MASTER_PORT", "http", "the environment variable MASTER_PORT is 'http', no count: unset it, or start with"),
        ("RANK", "4", "RANK 4 is none of the 4 processes of WORLD_SIZE: start with torchrun"),
    ],
)
def test_a_place_where_no_processes_meet_is_named(monkeypatch, name, value, message):
    for each, content in {**JOB, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(each, content)
    torchrun.check_meeting_place()
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{message}"):
        torchrun.check_meeting_place()


def test_rank_0_is_the_main_process(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torchrun.is_main_process()


def test_a_process_outside_the_job(monkeypatch):
    """It has the rest of the environment, and no place in the job."""
    for name, value in {**JOB, "SOME_SETTING": "kept"}.items():
        monkeypatch.setenv(name, value)
    outside = torchrun.environment_outside()
    assert outside["SOME_SETTING"] == "kept"
    assert os.environ["RANK"] == "3"
    for name in os.environ.keys() - outside.keys():
        monkeypatch.delenv(name)
    assert place() == (False, 0, 1, 0, 1, 0, True)
    assert not {"MASTER_ADDR", "MASTER_PORT"} & outside.keys()
