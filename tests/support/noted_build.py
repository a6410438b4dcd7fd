"""noted_build.py HOW ARGUMENTS: `bertfast.pretrain`, which notes the stages of the build of its corpus.

It "fails" or "dies" before the last stage, or "ends".
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from bertfast.data.building import build
from bertfast.errors import InputError
from bertfast.pretrain import main

STAGES = ("_read", "_tokenise", "_make_tokenizer", "_join")


def run(how: str, *arguments: str) -> int:
    for name in STAGES:
        setattr(build, name, _noted(name, getattr(build, name), how))
    return main(arguments)


def _noted(name: str, make: Callable[..., object], how: str) -> Callable[..., None]:
    def stage(*rest: object) -> None:
        if name == STAGES[-1] and how == "fails":
            raise InputError("it is bad")
        if name == STAGES[-1] and how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(1, f"{name} {os.environ['RANK']}\n".encode())
        make(*rest)

    return stage


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
