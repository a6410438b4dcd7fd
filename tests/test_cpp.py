"""Builds and runs the C++ tests, which step the CUDA kernels' threads on the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_cpp(tmp_path: Path) -> None:
    if not all(map(shutil.which, ("cmake", "ninja"))) or not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("needs cmake, ninja and a C++ compiler")
    options = ["-DBERTFAST_CPP_TESTS=ON", "-DBERTFAST_PYTHON=OFF", "-DBERTFAST_CUDA=OFF"]
    for command in (
        ["cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, *options],
        ["cmake", "--build", tmp_path],
        ["ctest", "--test-dir", tmp_path, "--output-on-failure"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
