"""Two hosts, each a network namespace, joined by a pair of virtual interfaces; one is cut off in the middle."""

import contextlib
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from support.torchrun import HANGS, command, once_written, started, weights


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts():
    """The namespaces of hosts a, 10.77.0.1, and b, 10.77.0.2."""
    names = [f"bertfast-{os.getpid()}-{letter}" for letter in "ab"]
    try:
        made = [ip("netns", "add", name) for name in names]
    except FileNotFoundError:
        pytest.skip("needs the command ip (Debian's iproute2)")
    if failed := [done.stderr.strip() for done in made if done.returncode]:
        pytest.skip(f"network namespaces can't be made here: {failed[0]}")
    try:
        pair = ["type", "veth", "peer", "name", "link0", "netns"]
        assert ip("link", "add", "link0", "netns", names[0], *pair, names[1]).returncode == 0
        for number, name in enumerate(names, 1):
            assert ip("-n", name, "address", "add", f"10.77.0.{number}/30", "dev", "link0").returncode == 0
            for link in ("lo", "link0"):
                assert ip("-n", name, "link", "set", link, "up").returncode == 0
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


@contextlib.contextmanager
def ranks_on(hosts, nodes, arguments, out):
    """A rank on each host, under a torchrun of its own. Yields the processes, and the files of their standard errors.
    Host b is cut off at step 8."""
    cut = once_written("1:8:ip link set link0 down", out / "checkpoints" / "step-00000003.safetensors")
    arguments = [*arguments, "--out", out, "--checkpoint-every", 3, "--timeout", 5]
    limits = "last_call_timeout=3,keep_alive_interval=1,read_timeout=10,join_timeout=60"
    agent = ["--nnodes", nodes, "--max-restarts", 2, "--rdzv-backend", "c10d", "--rdzv-id", "two-hosts"]
    with contextlib.ExitStack() as stack:
        processes, errors = [], []
        for number, name in enumerate(hosts, 1):
            words = [*agent, "--rdzv-endpoint", "10.77.0.1:29400", "--local-addr", f"10.77.0.{number}"]
            words += ["--rdzv-conf", f"{limits},is_host={str(number == 1).lower()}"]
            named = f'hostname host-{"ab"[number - 1]}; exec "$@"'  # no name of it resolves; torchrun doesn't mind
            prefix = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", named, "sh"]
            errors.append(stack.enter_context(tempfile.NamedTemporaryFile("w+")))
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": "link0", "OMP_NUM_THREADS": "1"}
            run = command(1, *arguments, event=cut, agent=words)
            process = started(run, prefix, stderr=errors[-1], stdout=subprocess.DEVNULL, env=environment)
            processes.append(stack.enter_context(process))
        yield processes, [file.name for file in errors]


def wait_for(pattern, path, process):
    """Until the file holds a line that matches."""
    while not re.search(pattern, text := read(path), re.M):
        assert process.poll() is None, text
        time.sleep(0.1)


def read(path):
    return Path(path).read_text()


def test_the_other_host_continues_alone(whole, hosts, tmp_path):
    """`--nnodes 1:2`. Each rank reports what it has lost; host a restarts by itself, with one rank."""
    expected, arguments = whole
    out = tmp_path / "out"
    with ranks_on(hosts, "1:2", arguments, out) as (processes, errors):
        processes[0].wait(timeout=HANGS)
        text = read(errors[0])
        wait_for(r"^error: rank 1 is cut off from the run's store, which is on rank 0's host$", errors[1], processes[1])
    assert processes[0].returncode == 0, text
    assert re.search(r"^error: rank 0 lost rank 1 \(host host-b, process \d+\)$", text, re.M)
    assert re.search(r"resuming from .*, step [36]$", text, re.M)
    assert "1 CPU process with" in text
    assert weights(out) == weights(expected)


@pytest.mark.long
def test_the_host_that_comes_back_joins_again(whole, hosts, tmp_path):
    """`--nnodes 2`. Host a waits for b, and both restart by themselves."""
    expected, arguments = whole
    out = tmp_path / "out"
    with ranks_on(hosts, "2", arguments, out) as (processes, errors):
        wait_for("rank 0 lost rank 1", errors[0], processes[0])
        wait_for("rank 1 is cut off", errors[1], processes[1])
        assert ip("-n", hosts[1], "link", "set", "link0", "up").returncode == 0
        for process, path in zip(processes, errors, strict=True):
            assert process.wait(timeout=HANGS) == 0, read(path)
        text = read(errors[0])
    assert re.search(r"resuming from .*, step [36]$", text, re.M)
    assert text.count("2 CPU processes with") == 2
    assert weights(out) == weights(expected)
