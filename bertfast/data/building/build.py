"""The work of building a corpus, as tasks: any number of processes do them together, and go on where others stopped.

In a folder of its own, for each unit N of the text:

    reading-N.json  how much text of each form was read, and how much of it left out
    words-N.json    how often each of its words occurs, beside text-N.txt, its sentences; where a tokenizer is trained
    tokenizer.json  trained from all of these, or given
    tokens-N.bin    its sentences, tokenised

and then the corpus, which these are joined into.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import platform
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

from tqdm import tqdm

from bertfast.config import CorpusConfig
from bertfast.data.building.chunks import Chunk, write_chunk
from bertfast.data.building.helpers import helping
from bertfast.data.building.join import join
from bertfast.data.building.tasks import Task, finish
from bertfast.data.building.units import Unit
from bertfast.data.fingerprint import signature
from bertfast.data.readers.lines import OnRead
from bertfast.data.sentences import MARKS, Tally
from bertfast.data.tokenizer import MOST_WORDS, TRAINERS, Tokenizer, count_words, forget_rarest, sampled_share
from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.log import shows_progress

logger = logging.getLogger(__name__)

# Characters that go through the tokenizer at a time.
BATCH = 1 << 20


def process_name() -> str:
    """This process, for others that wait for it."""
    rank = f"rank {os.environ['RANK']}, " if "RANK" in os.environ else ""
    return f"{rank}process {os.getpid()} on {platform.node()}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be built, and where; helpers get it pickled."""

    work: Path
    """The folder of the tasks' files."""
    units: tuple[Unit, ...]
    signatures: dict[Path, list[int]]
    """Of the files, when they were digested."""
    given: str | None
    """The tokenizer, as its JSON; None: one is trained."""
    config: CorpusConfig
    sources: str
    """For messages."""
    who: str = dataclasses.field(default_factory=process_name)
    """The process that wants it."""

    def file(self, name: str, unit: int, suffix: str) -> Path:
        return self.work / f"{name}-{unit:05}{suffix}"

    def task(self, made: Path, make: Callable[..., None], *arguments: object, size: int = 0) -> Task:
        return Task(made, self.work / f"{made.stem}.claim", partial(make, self, *arguments), size)


def build(plan: Plan, folder: Path, fingerprint: str, progress: bool) -> None:
    """Makes `folder` the corpus, from what is in `plan.work` already."""
    plan.work.mkdir(exist_ok=True)
    stages = stages_of(plan)
    tasks = [task for stage in stages.values() for task in stage if task.size]
    done = [task for task in tasks if task.done]
    if done:
        logger.info("going on: %s of %s parts are there", len(done), len(tasks))

    def at(stage: str, before: int, size: int) -> None:
        bar.set_description(stage, refresh=False)
        bar.update(before + size - bar.n)

    with (
        tqdm(
            total=sum(task.size for task in tasks),
            initial=sum(task.size for task in done),
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
            disable=not (progress and shows_progress()),
        ) as bar,
        helping(plan, len(plan.units) if len(done) < len(tasks) else 0),
    ):
        work_off(plan, at)
    made = folder / "manifest.json"
    joined = plan.task(made, _join, folder, fingerprint)
    finish([joined], plan.who, lambda size: None)


def stages_of(plan: Plan) -> dict[str, list[Task]]:
    """The tasks, by what they do; each stage needs the one before done."""
    stages: dict[str, list[Task]] = {}
    if plan.given is None:
        stages["reading"] = [
            plan.task(plan.file("words", i, ".json"), _read, i, size=unit.size) for i, unit in enumerate(plan.units)
        ]
    stages["vocabulary"] = [plan.task(plan.work / "tokenizer.json", _make_tokenizer)]
    stages["tokenising"] = [
        plan.task(plan.file("tokens", i, ".bin"), _tokenise, i, size=unit.size) for i, unit in enumerate(plan.units)
    ]
    return stages


def work_off(plan: Plan, at: Callable[[str, int, int], object]) -> None:
    """Returns when all stages are done, by this process or others.

    `at` is told the stage, the bytes of those before, and the bytes done of this one.
    """
    before = 0
    for name, tasks in stages_of(plan).items():
        finish(tasks, plan.who, partial(at, name, before))
        before += sum(task.size for task in tasks)


def help_out() -> int:
    """The life of a helper; its exit status.

    What ends its work, the process that it helps meets as well when it takes over, and tells; so it ends in silence.
    """
    plan = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        work_off(plan, lambda *progress: None)
    except (InputError, OSError):
        return 2
    return 0


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


# ---- the tasks


def _read(plan: Plan, index: int, on_read: OnRead) -> None:
    """A unit's sentences and words."""
    with (
        whole_file(plan.file("text", index, ".txt")) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as out,
    ):
        counted = 0

        def written() -> Iterator[str]:
            nonlocal counted
            for sentence in _sentences(plan, index, on_read):
                out.write(f"{sentence}\n")
                counted += sentence not in MARKS
                yield sentence

        words = count_words(written(), plan.config.tokenizer, plan.config.lowercase, plan.config.base_language)
    with whole_file(plan.file("words", index, ".json")) as partial:
        partial.write_text(json.dumps({"sentences": counted, "words": words}), encoding="utf-8")


def _make_tokenizer(plan: Plan, on_read: OnRead) -> None:
    backend = plan.given
    if backend is None:
        words: Counter[str] = Counter()
        sentences = 0
        for index in range(len(plan.units)):
            counts = json.loads(plan.file("words", index, ".json").read_text(encoding="utf-8"))
            sentences += counts["sentences"]
            words.update(counts["words"])
            forget_rarest(words, MOST_WORDS)
        _check_sentences(sentences, plan.sources)
        share = sampled_share(words)
        if share < 1 and plan.config.tokenizer == "wordpiece":
            logger.info("the vocabulary is learnt from a sample: %s of %s words", f"{share:.2%}", f"{words.total():,}")
        backend = TRAINERS[plan.config.tokenizer](words, plan.config).backend.to_str()
    with whole_file(plan.work / "tokenizer.json") as partial:
        partial.write_text(backend, encoding="utf-8")


def _tokenise(plan: Plan, index: int, on_read: OnRead) -> None:
    tokenizer = _tokenizer(plan.work / "tokenizer.json")
    if plan.given is None:
        stream = _written_sentences(plan.file("text", index, ".txt"), plan.units[index].size, on_read)
    else:
        stream = _sentences(plan, index, on_read)
    with whole_file(plan.file("tokens", index, ".bin")) as partial, partial.open("wb") as out:
        for batch in _batches(stream):
            write_chunk(out, Chunk.of(batch, tokenizer))


def _join(plan: Plan, folder: Path, fingerprint: str, on_read: OnRead) -> None:
    parts = [plan.file("tokens", index, ".bin") for index in range(len(plan.units))]
    tokenizer = _tokenizer(plan.work / "tokenizer.json")
    join(
        parts,
        tokenizer,
        folder,
        fingerprint,
        plan.config.deduplicate,
        {"documents": _documents(plan), "forms": _forms(plan)},
        lambda count: _check_sentences(count, plan.sources),
    )


def _documents(plan: Plan) -> dict[str, int]:
    """What documents are, in words, and of how many files."""
    files = {file.path: file.document for unit in plan.units for file in unit.files}
    return dict(Counter(files.values()))


def _forms(plan: Plan) -> dict[str, dict[str, int]]:
    """How much text of each form was read, and how much left out."""
    forms: dict[str, Tally] = {}
    for index in range(len(plan.units)):
        read = json.loads(plan.file("reading", index, ".json").read_text(encoding="utf-8"))
        for form, counts in read.items():
            forms.setdefault(form, Tally()).add(Tally(**counts))
    return {form: vars(tally) for form, tally in forms.items()}


def _sentences(plan: Plan, index: int, on_read: OnRead) -> Iterator[str]:
    """A unit's, from its files. Raises InputError where these aren't any more what was digested."""
    unit = plan.units[index]
    tallies: dict[str, Tally] = {}
    yield from unit.sentences(plan.config.language, on_read, tallies)
    for file in unit.files:
        if signature(file.path) != plan.signatures[file.path]:
            raise InputError(f"{file.path} changed while it was read: run again")
    with whole_file(plan.file("reading", index, ".json")) as partial:
        partial.write_text(json.dumps({form: vars(tally) for form, tally in tallies.items()}), encoding="utf-8")


def _written_sentences(path: Path, size: int, on_read: OnRead) -> Iterator[str]:
    """Those that `_read` wrote; `on_read` is told of `size` bytes in all."""
    share = size / max(1, path.stat().st_size)
    with path.open(encoding="utf-8", newline="\n") as file:
        while lines := file.readlines(BATCH):
            yield from (line[:-1] for line in lines)
            on_read(round(sum(map(len, lines)) * share))


def _check_sentences(count: int, sources: str) -> None:
    if count < 2:
        raise InputError(
            f"{'one sentence only' if count else 'no text'} in {sources}: give more, or another --text-form"
        )


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
