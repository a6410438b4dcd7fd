"""A folder of csrc/ includes only what lies below it; import-linter holds bertfast/ to the same (pyproject.toml)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each folder's files may include their own folder and those listed.
CSRC = {
    "core": set(),
    "cpu": {"core"},
    "cuda": {"core"},
    "bindings": {"core", "cpu", "cuda"},
}


@pytest.mark.parametrize("folder", CSRC)
def test_csrc_includes_point_upward(folder):
    for path in sorted((ROOT / "csrc" / folder).iterdir()):
        for include in re.findall(r'#include "(\w+)/', path.read_text(encoding="utf-8")):
            assert include in CSRC[folder] | {folder}, f"{path.name} includes {include}/"


@pytest.mark.parametrize("folder", ["core", "cpu", "cuda"])
def test_only_bindings_know_python(folder):
    for path in sorted((ROOT / "csrc" / folder).iterdir()):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#include <(pybind11|torch|Python|ATen)", text), path.name
        if folder == "core":
            assert not re.search(r"cuda_runtime|\bnew\b [A-Za-z]|malloc|std::vector", text), path.name
