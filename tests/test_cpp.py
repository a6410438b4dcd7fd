"""Builds the C++ code and runs its tests, which step the CUDA kernels' threads on the host; configures it for a Mac."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cpp() -> None:
    if not all(map(shutil.which, ("cmake", "ninja"))) or not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("needs cmake, ninja and a C++ compiler")
    options = ["-DBERTFAST_CPP_TESTS=ON", "-DBERTFAST_PYTHON=OFF", "-DBERTFAST_CUDA=OFF"]
    build = ROOT / "build" / "tests"  # kept, so that the next run compiles only what has changed
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *options)
    run("cmake", "--build", build)
    run("ctest", "--test-dir", build, "--output-on-failure")


@pytest.mark.parametrize("has_libomp", [True, False])
def test_on_a_mac_the_kernels_start_plain_threads(tmp_path: Path, has_libomp: bool) -> None:
    """CMake configures for Apple's clang, which another clang stands in for. Nothing is compiled for a Mac here."""
    clang = shutil.which("clang++") or shutil.which("clang++-19")
    if not clang or not all(map(shutil.which, ("cmake", "ninja"))):
        pytest.skip("needs cmake, ninja and clang")
    pybind11 = pytest.importorskip("pybind11")
    brew, build = tmp_path / "brew", tmp_path / "build"
    if has_libomp:
        for file in ("lib/libomp.dylib", "include/omp.h"):
            (brew / file).parent.mkdir(parents=True)
            (brew / file).touch()
    mac = {
        "CMAKE_SYSTEM_NAME": "Darwin",
        "CMAKE_SYSTEM_PROCESSOR": "arm64",
        "CMAKE_CXX_COMPILER": clang,
        "CMAKE_CXX_COMPILER_TARGET": "arm64-apple-macos11",
        "CMAKE_CXX_FLAGS": "-D__apple_build_version__=15000000",
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",  # there is no linker
        "CMAKE_CROSSCOMPILING_EMULATOR": "env",  # this Python stands in for a Mac's
        "CMAKE_PREFIX_PATH": brew,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "BERTFAST_CUDA": "OFF",
    }
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *(f"-D{name}={value}" for name, value in mac.items()))
    ninja = (build / "build.ninja").read_text()
    assert set(re.findall(r"-DBERTFAST_ISA=(\w+)", ninja)) == {"neon", "neon_bf16"}
    assert "openmp" not in ninja  # torch's libomp would be a second one
    (extension,) = (step for step in ninja.split("\n\n") if "CXX_MODULE_LIBRARY_LINKER___bertfast" in step)
    assert re.search(r"LINK_LIBRARIES = libbertfast_cpu\.a\s", extension)
    assert re.search(r"-undefined\S* \S*\s?dynamic_lookup|-undefined,dynamic_lookup", extension)
