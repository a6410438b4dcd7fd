"""This process's place in a torchrun job, from the environment variables that nothing else reads."""

from __future__ import annotations

import os

from bertfast.errors import InputError

_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with its environment) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    return _number("RANK", 0) if under_torchrun() else 0


def world_size() -> int:
    return _number("WORLD_SIZE", 1) if under_torchrun() else 1


def local_rank() -> int:
    """The rank among this host's processes."""
    return _number("LOCAL_RANK", rank())


def local_world_size() -> int:
    """This host's processes."""
    return _number("LOCAL_WORLD_SIZE", world_size())


def restarts() -> int:
    """How often torchrun has started the job's processes anew."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default)).strip()
    if not value.isdecimal():
        raise InputError(f"the environment variable {name} is {value!r}, no count: unset it, or start with torchrun")
    return int(value)


def check_meeting_place() -> None:
    """Raises InputError unless the environment says where the processes meet, and this one is among them."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise InputError(f"RANK and WORLD_SIZE are set, but not {name}: unset them, or start with torchrun")
    _number("MASTER_PORT", 0)
    if rank() >= world_size():
        raise InputError(f"RANK {rank()} is none of the {world_size()} processes of WORLD_SIZE: start with torchrun")


def is_main_process() -> bool:
    """Whether this process logs and writes files for the run: rank 0, or the only one."""
    return rank() == 0


def environment_outside() -> dict[str, str]:
    """This process's environment without torchrun's variables, for a process that must not join the job."""
    return {name: value for name, value in os.environ.items() if name not in _NAMES and "TORCHELASTIC" not in name}
