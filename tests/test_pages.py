"""The README and the pages under docs/: every block of code in them runs.

A page's blocks run in their order, in one folder that holds what the pages speak of: texts, labels, a model. Training
is cut short. A block that cannot run here has a comment before it, `<!-- not run: the reason -->`. This takes minutes:
`pytest -m documents` runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from support import planted_labels
from support.torchrun import HANGS

from bertfast.data.readers.scored_pairs import ScoredPairs

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = ("pretrain", "encode", "fill_mask", "probe", "evaluate", "export", "corpus", "check")


class Block(NamedTuple):
    language: str
    code: str
    line: int
    """Of the code's first line in its page, from 1."""
    not_run: str
    """Why it does not run; empty if it does."""


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    pattern = r"^(?:<!-- not run: ([^\n]+) -->\n)?```([^\n]*)\n(.*?)^```$"
    for match in re.finditer(pattern, text, re.M | re.S):
        yield Block(match[2], match[3], text.count("\n", 0, match.start(3)) + 1, match[1] or "")


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in ("bash", "python") and not block.not_run]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_names_its_language(page):
    for block in blocks_of(page):
        assert block.language in ("bash", "python", "text"), f"{name_of(page)}:{block.line - 1}"


def test_what_proves_a_promise_exists():
    """The files, and for each word after -k a test that it chooses."""
    rows = re.findall(r"^\| \*\*.*", (ROOT / "docs" / "promises.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 10
    for row in rows:
        commands = re.findall(r"pytest [^`;]+", row)
        assert commands, row
        for command in commands:
            words = shlex.split(command)
            paths = [ROOT / word for word in words if word.endswith(".py")]
            names = [name for path in paths for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
            chosen = words[words.index("-k") + 1].split(" or ") if "-k" in words else ["test"]
            for word in chosen:
                assert any(word in name for name in names), f"{command}: {word}"


# ---- what the pages speak of


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_texts(folder / "my_texts" / "a.txt", seed=0)
    write_texts(folder / "other_texts" / "b.txt", seed=1)
    write_texts(folder / "path" / "to" / "wikitext-2" / "valid.txt", seed=2)
    for name, seed in (("reviews.tsv", 0), ("train.tsv", 1), ("test.tsv", 2)):
        planted_labels.write(folder / name, planted_labels.labelled(150, seed))
    given = planted_labels.labelled(150, 3)
    records = [{"text": text, "label": label} for text, label in zip(*given, strict=True)]
    for name in ("reviews.jsonl", "texts.jsonl"):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    scores = np.random.default_rng(0).uniform(0, 5, 75).tolist()
    planted_labels.write_pairs(folder / "pairs.tsv", ScoredPairs(given.texts[::2], given.texts[1::2], scores))
    bert = folder / "path" / "to" / "bert"
    bert.mkdir()
    planted_labels.save(bert, knows=False)
    bash(folder, "python -m bertfast.pretrain --quiet --corpus my_texts/ --preset tiny --minutes 1 --out runs/mine")
    return folder


def write_texts(path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    words = [f"{one}{other}" for one in "bdfgklmn" for other in ("a", "ei", "ola", "ind", "ust")]
    documents = (
        "\n".join(" ".join(generator.choice(words, generator.integers(4, 14))) + " ." for _ in range(8))
        for _ in range(80)
    )
    path.parent.mkdir(parents=True)
    path.write_text("\n\n".join(documents) + "\n")


# ---- running


# What installs or uploads something, or would start these tests, does nothing here.
IDLE = ("pip", "hf", "pytest")


def cut(code: str) -> str:
    """The code with all training cut to four small steps of a small model."""
    code = re.sub(r"--step \d+", "--step 3", re.sub(r"--(minutes|steps) \S+ ?", "", code))
    code = re.sub(r"--preset \w+", "--preset tiny", code)
    code = code.replace("-m bertfast.pretrain", "-m bertfast.pretrain --steps 4 --batch-size 16")
    return re.sub(r"\bbatch_size=\d+", "batch_size=16", re.sub(r"\bsteps=\d+", "steps=4", code))


def bash(folder: Path, code: str) -> None:
    idle = "".join(f"{name}() {{ :; }}\n" for name in IDLE)
    environment = {**os.environ, "BERTFAST_CACHE": str(folder.parent / "cache")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", idle + cut(code)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


def checked_shapes(code: str) -> str:
    """The code with each line `x.shape  # (1, 2)` as an assertion of that."""
    return re.sub(r"^(\S.*\.shape)  # (\([\d, ]+\)).*$", r"assert tuple(\1) == \2, tuple(\1)", code, flags=re.M)


@pytest.mark.documents
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_the_code_of_the_page_runs(page, furnished, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    shutil.copytree(furnished, folder)
    if "--out runs/mine" in page.read_text(encoding="utf-8"):
        shutil.rmtree(folder / "runs")  # the page trains it
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BERTFAST_CACHE", str(folder.parent / "cache"))
    names: dict[str, object] = {}
    for block in runnable(page):
        if block.language == "bash":
            bash(folder, block.code)
        else:
            code = "\n" * (block.line - 1) + checked_shapes(cut(block.code))
            exec(compile(code, str(page), "exec"), names)


# ---- the reference


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_reference_lists_every_option_of_every_command(hooks):
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert re.findall(r"^<!-- options: (\w+) -->$", page, re.M) == list(COMMANDS)
    expanded = hooks.expanded(page)
    assert "<!--" not in expanded
    for command in COMMANDS:
        section = expanded.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        helps = importlib.import_module(f"bertfast.{command}")._parser().format_help()
        for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", helps)) - {"--help", "--quiet"}:
            assert flag in section, f"{command} {flag}"


def test_links_between_files_become_links_between_pages(hooks):
    text = "[a](../CHANGELOG.md) [b](data.md#text) [c](https://x.org/y.md) [d](how-to/own-text.md)"
    assert hooks.relinked(text, "README.md") == text.replace("../CHANGELOG.md", "changelog.md")
    assert hooks.relinked("[a](docs/data.md)", "contributing.md") == "[a](data.md)"
    assert hooks.relinked("[a](../training.md)", "how-to/own-text.md") == "[a](../training.md)"
