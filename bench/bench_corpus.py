"""Building a corpus, vocabulary included, compared with the tokenizers library's encoding alone; and its memory."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sizes import sized
from support.notebook import wikitext_folder

from bertfast.data.load import load_corpus
from bertfast.data.sentences import sentences
from bertfast.data.text_file import TextFile

MEGABYTES = sized(25, smoke=1)  # of text, for the time of a build
MANY_MEGABYTES = sized(1000, smoke=3)  # of text, for the memory of a build
RARE = 0.03  # share of the words that only one copy of WikiText-2's text has, as new text brings new words


def write_text(path: Path, megabytes: int) -> None:
    """Writes copies of WikiText-2's validation and test text, each with some words of its own."""
    lines = [line for name in ("valid.txt", "test.txt") for line in (wikitext_folder() / name).open(encoding="utf-8")]
    numbers = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for copy in itertools.count():
            for line in lines:
                words = line.split(" ")
                for i, word in enumerate(words):
                    if copy and word.isalpha() and numbers.random() < RARE:
                        words[i] = f"{word}{copy}"
                file.write(" ".join(words))
                if file.tell() >= megabytes * 1_000_000:
                    return


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_corpus(compare: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wiki.train.tokens"
    write_text(path, MEGABYTES)
    texts = [sentence for sentence in sentences(TextFile(path, "wikitext")) if sentence]
    backend = load_corpus(path, tokenizer=kind, cache_dir=tmp_path / "first", progress=False).tokenizer.backend
    caches = (tmp_path / f"cache-{i}" for i in itertools.count())

    def build() -> None:
        load_corpus(path, tokenizer=kind, cache_dir=next(caches), progress=False)

    def encode() -> None:
        backend.encode_batch_fast(texts, add_special_tokens=False)

    compare(
        f"a {kind} corpus of {path.stat().st_size / 1e6:.1f} MB",
        build,
        {"encode_batch_fast alone": encode},
        rounds=3,
        items=path.stat().st_size / 1e6,
        unit="MB",
        bars={"encode_batch_fast alone": 1.0},
    )


@pytest.mark.long
def test_memory(benchmark: Any, tables: list[list[str]], tmp_path: Path) -> None:
    """The sum of the resident memory of all processes, which counts shared libraries several times."""
    path = tmp_path / "wiki.train.tokens"
    write_text(path, MANY_MEGABYTES)
    command = [sys.executable, "-m", "bertfast.corpus", "build", str(path), "--out", str(tmp_path / "out")]
    peak = 0

    def build() -> None:
        nonlocal peak
        environment = {**os.environ, "BERTFAST_CACHE": str(tmp_path / "cache")}
        with subprocess.Popen([*command, "--tokenizer", "wordpiece"], env=environment) as process:
            while process.poll() is None:
                peak = max(peak, resident(process.pid))
                time.sleep(0.2)
        assert process.returncode == 0

    begun = time.perf_counter()
    benchmark.pedantic(build, rounds=1)
    seconds = time.perf_counter() - begun
    built = f"a wordpiece corpus of {MANY_MEGABYTES:,} MB"
    tables.append([f"{built}: {seconds:.0f} s, {peak / 1e6:,.0f} MB of memory at the peak"])


def resident(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)
