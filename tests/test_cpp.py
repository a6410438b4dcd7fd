"""Builds and runs the C++ tests, which step the CUDA kernels' threads on the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_cpp(tmp_path: Path) -> None:
    if shutil.which("cmake") is None or not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("needs cmake and a C++ compiler")
    options = ["-DBERTFAST_CPP_TESTS=ON", "-DBERTFAST_PYTHON=OFF", "-DBERTFAST_CUDA=OFF"]
    for command in (
        ["cmake", "-S", ROOT, "-B", tmp_path, *options],
        ["cmake", "--build", tmp_path, "--parallel"],
        ["ctest", "--test-dir", tmp_path, "--output-on-failure"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
