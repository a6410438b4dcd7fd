"""After `keep_freed_memory`, all threads' memory lies in huge pages and is kept. It is for good: a process tries it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTES = 160
PROGRAM = f"""
import json, resource, threading
from pathlib import Path
import torch
from bertfast._native import native

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    tensors = [torch.ones(8 << 18) for _ in range({MEGABYTES // 8})]
    lines = Path("/proc/self/smaps").read_text().splitlines()
    found["huge"].append(sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages")) / 1024)
    found["faults"].append(faults())

torch.set_num_threads(1)
found = {{"huge": [], "faults": [faults()]}}
for call in range(2):
    native.keep_freed_memory()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
print(json.dumps(found))
"""


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries manage memory in their own way")
def test_memory_is_kept_in_huge_pages(tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout)
    first, second = (end - begin for begin, end in zip(found["faults"], found["faults"][1:], strict=False))
    assert second < 256  # in pages of 4 KB the tensors would take 40,960
    offered = "[never]" not in read("/sys/kernel/mm/transparent_hugepage/enabled") != ""
    counted = read("/proc/sys/vm/overcommit_memory").strip() == "2"
    if offered and not counted and os.sysconf("SC_PAGESIZE") == 4096:
        assert min(found["huge"]) > 0.9 * MEGABYTES
        assert first < 10_000
