"""Macs lack what only Linux has; nothing in bertfast needs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.torchrun import HANGS, TINY

import bertfast

WITHOUT_LINUX = """
import os, select, signal, socket

for module, names in {
    os: ("sched_", "posix_fadvise", "posix_fallocate", "copy_file_range", "memfd_create", "eventfd", "pidfd_open",
         "splice", "getrandom", "fdatasync", "pipe2", "O_DIRECT", "O_PATH", "O_TMPFILE"),
    select: ("epoll", "EPOLL"),
    signal: ("SIGRT", "SIGPOLL", "SIGPWR", "SIGSTKFLT", "sigwaitinfo", "sigtimedwait"),
    socket: ("AF_NETLINK", "AF_PACKET", "AF_VSOCK", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
}.items():
    for name in [name for name in vars(module) if name.startswith(names)]:
        delattr(module, name)
if hasattr(os, "process_cpu_count"):  # it calls sched_getaffinity
    os.process_cpu_count = os.cpu_count
"""

TRAIN_AND_ENCODE = """
import os, sys
from bertfast.encode import main as encode
from bertfast.pretrain import main as pretrain

assert not hasattr(os, "sched_getaffinity")
_, model, *options = sys.argv
sys.exit(pretrain(options) or encode(["--model", model, "a crane is flying"]))
"""


def test_two_workers_train_and_the_model_encodes(tmp_path: Path) -> None:
    """Without Linux's own functions in any process, including workers and those that read the text."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LINUX)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "BERTFAST_CACHE": str(tmp_path / "cache")}
    out = str(tmp_path / "out")

    (tmp_path / "text.txt").write_text("\n".join(f"The crane number {i} is flying. It is high." for i in range(300)))
    options = ["--corpus", str(tmp_path / "text.txt"), "--steps", "2", "--gpus", "2", "--out", out, *TINY]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_ENCODE, out, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sentence pairs/sec on" in done.stdout
    assert "encoded text (1, " in done.stdout


def test_no_file_of_linux_is_read() -> None:
    for file in Path(bertfast.__file__).parent.rglob("*.py"):
        assert not re.search(r"""["'](/proc|/sys|/dev/shm)\b""", file.read_text(encoding="utf-8")), file
