"""Builds a corpus in steps. Each step's result is kept on disk, so that an interrupted build resumes where it stopped.

A build has its own folder. For each unit N of the text it holds:

    reading-N.json  how much text of each form was read, and how much of it was left out
    counts-N.json   the unit's word counts, with its sentences, split, in split-N.bin; only if a tokenizer is trained
    tokenizer.json  trained from all units' words, or given
    tokens-N.bin    the unit's sentences, tokenised

Finally these are joined into the corpus. Each file is either complete or absent.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from bertfast.config import CorpusConfig
from bertfast.data.building.chunks import Split, read_splits, write_chunk, write_split
from bertfast.data.building.join import Origin, check_sentences, join
from bertfast.data.building.pool import MOST_PROCESSES, Pool
from bertfast.data.building.units import Unit
from bertfast.data.fingerprint import signature
from bertfast.data.readers.lines import OnRead
from bertfast.data.sentences import Tally
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.data.tokenizing.training import TRAINERS, sampled_share
from bertfast.data.tokenizing.word_counts import MOST_WORDS, WordCounter, forget_rarest
from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.log import progress_bar

logger = logging.getLogger(__name__)

# The number of characters to tokenise at a time.
BATCH = 1 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to build, and where."""

    work: Path
    """The folder for the build's intermediate files."""
    units: tuple[Unit, ...]
    signatures: dict[Path, list[int]]
    """The files' signatures at the time they were digested."""
    given: str | None
    """The given tokenizer, as JSON; None: train one."""
    config: CorpusConfig
    sources: str
    """For messages."""

    def file(self, name: str, unit: int, suffix: str) -> Path:
        return self.work / f"{name}-{unit:05}{suffix}"

    def missing(self, name: str, suffix: str) -> list[int]:
        """The units whose file doesn't exist yet."""
        return [unit for unit in range(len(self.units)) if not self.file(name, unit, suffix).exists()]

    def size(self, units: Iterable[int]) -> int:
        """The bytes of these units."""
        return sum(self.units[unit].size for unit in units)


def build(plan: Plan, folder: Path, fingerprint: str, progress: bool) -> None:
    """Builds the corpus in `folder`, reusing the files that `plan.work` already holds."""
    plan.work.mkdir(exist_ok=True)
    to_read = [] if plan.given else plan.missing("counts", ".json")
    to_tokenise = plan.missing("tokens", ".bin")
    passes = 1 if plan.given else 2
    parts = passes * len(plan.units)
    done = parts - len(to_read) - len(to_tokenise)
    if done:
        logger.info("resuming the build: %s of %s parts are there", done, parts)
    total = passes * plan.size(range(len(plan.units)))
    with (
        progress_bar(
            total=total,
            initial=total - plan.size(to_read) - plan.size(to_tokenise),
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
            disable=not progress,
        ) as bar,
        Pool(plan, min(_cores(), len(to_tokenise), MOST_PROCESSES)) as pool,
    ):
        bar.set_description("reading", refresh=False)
        pool.run(_read, to_read, bar.update)
        bar.set_description("vocabulary", refresh=False)
        if not (plan.work / "tokenizer.json").exists():
            _make_tokenizer(plan)
        bar.set_description("tokenising", refresh=False)
        pool.run(_tokenise, to_tokenise, bar.update)
    _join(plan, folder, fingerprint)


def _cores() -> int:
    """The number of cores that this process may use; 1 if it must not start processes."""
    if multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- the steps


def _read(plan: Plan, index: int, on_read: OnRead) -> None:
    """Writes a unit's sentences, split, and its word counts."""
    words = WordCounter(plan.config.tokenizer, plan.config.lowercase, plan.config.base_language)
    sentences = 0
    with whole_file(plan.file("split", index, ".bin")) as partial, partial.open("wb") as out:
        for batch in _batches(_sentences(plan, index, on_read)):
            split = Split.of(batch, at_spaces=True)
            write_split(out, split)
            words.add(batch, split.counts())
            sentences += len(split.chunk.lengths)
    with whole_file(plan.file("counts", index, ".json")) as partial:
        partial.write_text(json.dumps({"sentences": sentences, "words": words.words()}), encoding="utf-8")


def _make_tokenizer(plan: Plan) -> None:
    backend = plan.given
    if backend is None:
        words: Counter[str] = Counter()
        sentences = 0
        for index in range(len(plan.units)):
            counts = json.loads(plan.file("counts", index, ".json").read_text(encoding="utf-8"))
            sentences += counts["sentences"]
            words.update(counts["words"])
            forget_rarest(words, MOST_WORDS)
        check_sentences(sentences, plan.sources)
        share = sampled_share(words)
        if share < 1 and plan.config.tokenizer == "wordpiece":
            logger.info("the vocabulary is learnt from a sample: %s of %s words", f"{share:.2%}", f"{words.total():,}")
        backend = TRAINERS[plan.config.tokenizer](words, plan.config).backend.to_str()
    with whole_file(plan.work / "tokenizer.json") as partial:
        partial.write_text(backend, encoding="utf-8")


def _tokenise(plan: Plan, index: int, on_read: OnRead) -> None:
    tokenizer = _tokenizer(plan.work / "tokenizer.json")
    if plan.given is None:
        splits = _written_splits(plan.file("split", index, ".bin"), plan.units[index].size, on_read)
    else:
        batches = _batches(_sentences(plan, index, on_read))
        splits = (Split.of(batch, tokenizer.splits_at_spaces) for batch in batches)
    with whole_file(plan.file("tokens", index, ".bin")) as partial, partial.open("wb") as out:
        for split in splits:
            write_chunk(out, split.encoded(tokenizer))


def _join(plan: Plan, folder: Path, fingerprint: str) -> None:
    parts = [plan.file("tokens", index, ".bin") for index in range(len(plan.units))]
    tokenizer = _tokenizer(plan.work / "tokenizer.json")
    origin = Origin(plan.sources, {"documents": _documents(plan), "forms": _forms(plan)}, fingerprint)
    join(parts, tokenizer, folder, origin, plan.config)
    _tokenizer.cache_clear()  # the tokenizer holds many of the text's pieces


def _documents(plan: Plan) -> dict[str, int]:
    """What a document is, in words, and the number of files for which it is that."""
    files = {file.path: file.document for unit in plan.units for file in unit.files}
    return dict(Counter(files.values()))


def _forms(plan: Plan) -> dict[str, dict[str, int]]:
    """How much text of each form was read, and how much was left out."""
    forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for index in range(len(plan.units)):
        read = json.loads(plan.file("reading", index, ".json").read_text(encoding="utf-8"))
        for form, counts in read.items():
            forms[form].update(counts)
    return {form: dict(counts) for form, counts in forms.items()}


def _sentences(plan: Plan, index: int, on_read: OnRead) -> Iterator[str]:
    """A unit's sentences, from its files. Raises InputError if a file has changed since it was digested."""
    unit = plan.units[index]
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    yield from unit.sentences(plan.config.language, on_read, tallies)
    for file in unit.files:
        if signature(file.path) != plan.signatures[file.path]:
            raise InputError(f"{file.path} changed while it was read: run again")
    with whole_file(plan.file("reading", index, ".json")) as partial:
        partial.write_text(json.dumps({form: vars(tally) for form, tally in tallies.items()}), encoding="utf-8")


def _written_splits(path: Path, size: int, on_read: OnRead) -> Iterator[Split]:
    """What `_read` wrote; `on_read` is called with `size` bytes in all."""
    share = size / max(1, path.stat().st_size)
    with path.open("rb") as file:
        begin = 0
        for split in read_splits(file):
            yield split
            on_read(round((file.tell() - begin) * share))
            begin = file.tell()


def _batches(stream: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for sentence in stream:
        batch.append(sentence)
        size += len(sentence)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    yield batch


@lru_cache(1)
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path)
