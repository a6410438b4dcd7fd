"""This process's place in a torchrun job, from the environment variables that nothing else reads."""

from __future__ import annotations

import os

_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with its environment) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """The rank among this host's processes."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def local_world_size() -> int:
    """This host's processes."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def restarts() -> int:
    """How often torchrun has started the job's processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def is_main_process() -> bool:
    """Whether this process logs and writes files for the run: rank 0, or the only one."""
    return rank() == 0


def environment_outside() -> dict[str, str]:
    """This process's environment without torchrun's variables, for a process that must not join the job."""
    return {name: value for name, value in os.environ.items() if name not in _NAMES and "TORCHELASTIC" not in name}
