"""A folder of csrc/ includes only what lies below it; import-linter holds bertfast/ to the same (pyproject.toml)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each folder's files may include their own folder and those listed, and any file may include HOST_DEVICE.
CSRC = {
    "core/math": set(),
    "core/sampling": {"core/math"},
    "core": {"core/math"},
    "cpu/simd": {"core/math"},
    "cpu": {"core", "core/math", "core/sampling", "cpu/simd"},
    "cuda/tile": {"core/math"},
    "cuda": {"core", "core/math", "core/sampling", "cuda/tile"},
    "bindings": {"core", "core/math", "core/sampling", "cpu", "cpu/simd", "cuda"},
}
HOST_DEVICE = "core/host_device.h"


def files_in(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / "csrc" / folder).iterdir() if path.is_file())


@pytest.mark.parametrize("folder", CSRC)
def test_csrc_includes_point_upward(folder):
    for path in files_in(folder):
        for include in re.findall(r'#include "([\w/.]+)"', path.read_text(encoding="utf-8")):
            allowed = include == HOST_DEVICE or include.rpartition("/")[0] in CSRC[folder] | {folder}
            assert allowed, f"{path.name} includes {include}"


def test_every_folder_of_csrc_has_a_layer():
    assert {path.parent.relative_to(ROOT / "csrc").as_posix() for path in (ROOT / "csrc").rglob("*.*")} == set(CSRC)


@pytest.mark.parametrize("folder", sorted(set(CSRC) - {"bindings"}))
def test_only_bindings_know_python(folder):
    for path in files_in(folder):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#include <(pybind11|torch|Python|ATen)", text), path.name
        if folder.startswith("core"):
            assert not re.search(r"cuda_runtime|\bnew\b [A-Za-z]|malloc|std::vector", text), path.name
