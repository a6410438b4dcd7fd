"""Imports point only upward in the layers of docs/design.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each may import those before it, never those after.
PYTHON = [
    "_version",
    "errors",
    "config",
    "say",
    "command_line",
    "files",
    "_native",
    "ops",
    "embedded",
    "wikitext",
    "lines",
    "html_text",
    "records",
    "hub",
    "standard_input",
    "folders",
    "text",
    "tokenizer",
    "corpus",
    "sampler",
    "statistics",
    "model",
    "padding",
    "huggingface",
    "sentence_transformers",
    "onnx",
    "export",
    "adam",
    "checkpoint",
    "run_json",
    "show",
    "corpus/__main__",
    "tensorboard",
    "history",
    "plot",
    "diagnosis",
    "devices",
    "shards",
    "identity",
    "evaluate",
    "peers",
    "ranks",
    "gradients",
    "graph",
    "loss_form",
    "ring",
    "steps",
    "trainer",
    "launch",
    "encoder",
    "encode",
    "fill_mask",
    "pretrain",
]

# Each folder's files may include their own folder and those listed.
CSRC = {
    "core": set(),
    "cpu": {"core"},
    "cuda": {"core"},
    "bindings": {"core", "cpu", "cuda"},
}


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name.split(".")[1] for name in names if name.startswith("bertfast.")} & set(PYTHON)


@pytest.mark.parametrize("layer", PYTHON)
def test_python_imports_point_upward(layer):
    path = ROOT / "bertfast" / layer
    files = sorted(set(path.glob("*.py")) - {path / "__main__.py"}) if path.is_dir() else [path.with_suffix(".py")]
    allowed = set(PYTHON[: PYTHON.index(layer) + 1])
    for file in files:
        assert imported_modules(file) <= allowed, f"{file.name} imports from a layer below it"


def test_every_module_has_a_layer():
    modules = {path.stem for path in (ROOT / "bertfast").glob("*.py")} - {"__init__", "__main__"}
    assert modules | {"ops", "corpus", "corpus/__main__"} == set(PYTHON)


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
