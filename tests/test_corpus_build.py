"""A build by any number of processes, stopped at any instant: the same bytes; duplicates against a plain count."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterable
from itertools import chain, groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import listening
from notebook import wikitext_folder

from bertfast import corpus as corpus_command
from bertfast.config import CorpusConfig
from bertfast.data import deduplication
from bertfast.data.building import build, helpers, units
from bertfast.data.building.tasks import Task, finish
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus
from bertfast.data.readers.lines import ignore
from bertfast.data.sentences import sentences
from bertfast.data.text_file import TextFile
from bertfast.errors import InputError

ROOT = Path(__file__).parent.parent
SMALL = 64 << 10  # bytes of a unit, of which a text then has many
CONFIG = CorpusConfig("wordpiece", vocab_size=1000)


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def small_units(monkeypatch) -> None:
    monkeypatch.setattr(units, "UNIT", SMALL)


@pytest.fixture(scope="module")
def text() -> Path:
    return wikitext_folder() / "valid.txt"


@pytest.fixture(scope="module")
def expected(text, tmp_path_factory) -> dict[str, bytes]:
    """What one process makes of it in one piece."""
    corpus = load_corpus(text, config=CONFIG, cache_dir=tmp_path_factory.mktemp("expected"), progress=False)
    return content(corpus.folder)


@pytest.fixture
def alone(monkeypatch) -> None:
    """Without helpers."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def without_locks(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


# ---- units


def of_units(files: list[TextFile], least: int) -> tuple[int, list[str]]:
    """How many units, and all their sentences."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT", least)
        found = units.units_of(files)
    assert sum(unit.size for unit in found) == sum(file.path.stat().st_size for file in files)
    return len(found), list(chain.from_iterable(unit.sentences("en", ignore) for unit in found))


def one_end_each(stream: Iterable[str]) -> list[str]:
    """The stream without empty documents."""
    return [sentence for sentence, group in groupby(stream) for sentence in (group if sentence else [""])]


paragraphs = st.lists(st.sampled_from(["A b. C d é.", "", "\r", " \t", "x . y", "z", " = h = "]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(paragraphs, min_size=1, max_size=4), st.sampled_from([1, 7, 50]))
def test_units_are_the_files(tmp_path_factory, texts, least):
    folder = tmp_path_factory.mktemp("units")
    for form in ("wikitext", "lines", "plain"):
        files = []
        for i, lines in enumerate(texts):
            path = folder / f"{i}.txt"
            end = "\n\n" if form == "plain" else "\n"
            path.write_bytes("".join(f"{line}{end}" for line in lines).encode())
            files.append(TextFile(path, form))
        found, whole = of_units(files, least)[1], chain.from_iterable(map(sentences, files))
        assert one_end_each(found) == one_end_each(whole)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_units_of_records(tmp_path, kind):
    texts = [f"Record {i}. And é more.\n\nNext." for i in range(500)]
    path = tmp_path / f"some.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=20)
    file = TextFile(path, "plain", kind, "text")
    count, found = of_units([file], 1000)
    assert count > 5
    assert found == list(sentences(file))


def test_prose_without_a_blank_line_stays_one_document(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("It was dark. The rain fell.\n" * 1000)
    count, found = of_units([TextFile(path, "plain")], 1000)
    assert count > 20
    assert found == ["It was dark.", "The rain fell."] * 1000 + [""]


def test_compressed_files_and_large_csv_are_whole(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('text\n"a\n\nb"\n' * 1000)
    assert of_units([TextFile(path, "plain", "csv", "text")], 1000)[0] == 1


def test_small_files_are_read_together(tmp_path):
    files = []
    for i in range(100):
        path = tmp_path / f"{i}.txt"
        path.write_text("A line.\n")
        files.append(TextFile(path, "lines"))
    assert of_units(files, 80)[0] == 10


def test_an_error_in_a_unit_names_the_line_of_the_file(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "a"}\n' * 300 + "{\n" + '{"text": "a"}\n' * 100)
    with pytest.raises(InputError, match=r"some.jsonl:301: not JSON"):
        of_units([TextFile(path, "plain", "jsonl", "text")], 100)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 50 + ["\0"]}), tmp_path / "a.parquet", row_group_size=10)
    with pytest.raises(InputError, match=r"a.parquet, row 51: the text holds a NUL"):
        of_units([TextFile(tmp_path / "a.parquet", "plain", "parquet", "text")], 10)


# ---- tasks


def test_each_task_is_done_once(tmp_path):
    made: list[int] = []

    def task(i: int) -> Task:
        def make(on_read):
            made.append(i)
            (tmp_path / f"{i}").write_text("made")

        return Task(tmp_path / f"{i}", tmp_path / f"{i}.claim", make, size=1)

    all_tasks = [task(i) for i in range(200)]
    workers = [threading.Thread(target=finish, args=(all_tasks, "me", ignore)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(made) == list(range(200))


HOLD = """
import sys
from pathlib import Path
from bertfast.data.building.tasks import Task, finish

def make(on_read):
    print("at it", flush=True)
    sys.stdin.read()

finish([Task(Path("made"), Path("claim"), make)], "process 7 on there", lambda size: None)
"""


def test_a_dead_process_is_waited_for_and_then_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "at it\n"
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        holder.kill()

    task = Task(Path("made"), Path("claim"), lambda on_read: Path("made").write_text("mine"))
    with listening(hear):
        finish([task], "me", ignore)
    assert said == ["waiting for process 7 on there, which is at made; 1 are left"]
    assert Path("made").read_text() == "mine"
    holder.communicate()


def test_progress(tmp_path):
    at: list[int] = []

    def make(on_read):
        on_read(3)
        (tmp_path / "b").write_text("")

    (tmp_path / "a").write_text("")
    made = Task(tmp_path / "a", tmp_path / "a.claim", make, size=10)
    finish([made, Task(tmp_path / "b", tmp_path / "b.claim", make, size=5)], "me", at.append)
    assert at == [10, 13, 15]


# ---- any number of processes


@pytest.mark.parametrize("given", [False, True])
def test_helpers_change_nothing(text, tmp_path, monkeypatch, small_units, given):
    config = CONFIG
    if given:
        config = CorpusConfig(str(load_corpus(wikitext_folder() / "test.txt", config=config).folder))
    helped: list[int] = []

    def corpus(cores: int) -> Corpus:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        popen = subprocess.Popen
        with monkeypatch.context() as patch:
            patch.setattr(
                helpers.subprocess, "Popen", lambda *args, **more: helped.append(cores) or popen(*args, **more)
            )
            return load_corpus(text, config=config, cache_dir=tmp_path / f"{cores}", progress=False)

    alone, together = corpus(1), corpus(3)
    assert helped == [3, 3]
    assert content(alone.folder) == content(together.folder)
    monkeypatch.setattr(units, "UNIT", 1 << 30)
    assert content(load_corpus(text, config=config, cache_dir=tmp_path / "whole").folder) == content(alone.folder)
    assert without_locks(together.folder.parent) == {together.fingerprint}


DONE_BY = """
import os, sys
from bertfast.config import CorpusConfig
from bertfast.data.building import build, units
from bertfast.data.load import load_corpus

units.UNIT = int(sys.argv[2])
met = False

def meet():  # returns when both ranks have called it
    for i in "01":
        open(f"{sys.argv[3]}/{i}", "w" if i == os.environ["RANK"] else "r").close()

for name in ("_read", "_tokenise", "_make_tokenizer", "_join"):
    def note(plan, *rest, make=getattr(build, name), name=name):
        global met
        if name == "_tokenise" and not met:
            met = True
            meet()  # so that both have time to do some
        make(plan, *rest)
        unit = rest[0] if name in ("_read", "_tokenise") else "-"
        os.write(1, f"{name} {os.environ['RANK']} {unit}\\n".encode())
    setattr(build, name, note)
corpus = load_corpus(sys.argv[1], config=CorpusConfig("wordpiece", vocab_size=1000))
os.write(1, f"fingerprint {os.environ['RANK']} {corpus.fingerprint}\\n".encode())
"""


def test_under_torchrun_every_rank_does_its_share(text, expected, tmp_path, cache, small_units):
    (tmp_path / "script.py").write_text(DONE_BY)
    for name in "01":
        os.mkfifo(tmp_path / name)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "--no-python", sys.executable, str(tmp_path / "script.py"), str(text), str(SMALL), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    count = len(units.units_of([TextFile(text, "wikitext")]))
    for name in ("_read", "_tokenise"):
        assert sorted(int(unit) for each, _, unit in found if each == name) == list(range(count))
    assert {rank for name, rank, _ in found if name == "_tokenise"} == {"0", "1"}
    assert [name for name, *_ in found].count("_make_tokenizer") == 1
    assert [name for name, *_ in found].count("_join") == 1
    [fingerprint] = {what for name, _, what in found if name == "fingerprint"}
    assert content(cache / "corpora" / fingerprint) == expected
    assert without_locks(cache / "corpora") == {fingerprint}


# ---- stopped, and going on

STOPPED = """
import os, signal, sys
from bertfast.config import CorpusConfig
from bertfast.data.building import units
from bertfast.data.load import load_corpus

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
os.sched_getaffinity = lambda pid: {0}
units.UNIT = int(sys.argv[2])
fsync, left = os.fsync, int(sys.argv[3])

def stop(descriptor):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))
    fsync(descriptor)

os.fsync = stop
load_corpus(sys.argv[1], config=CorpusConfig("wordpiece", vocab_size=1000), progress=False)
"""


def stopped(text: Path, syncs: int, by: str = "SIGKILL") -> int:
    """Builds until so many files were written; the parts that are then there, of both kinds."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(text), str(SMALL), str(syncs), by], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -getattr(signal, by), done.stderr
    [work] = (Path(os.environ["BERTFAST_CACHE"]) / "corpora").glob("*.building")
    return sum(
        1 for pattern in ("words-*.json", "tokens-*.bin") for path in work.glob(pattern) if "partial" not in path.name
    )


# Three files are written of each unit's reading and one of its tokens, each synced with its folder; one comes before.
INSTANTS = [
    pytest.param(3, "SIGKILL", id="at the first unit"),
    pytest.param(29, "SIGKILL", id="reading"),
    pytest.param(31, "SIGINT", id="interrupted"),
    pytest.param(2 + 6 * 16 + 1, "SIGKILL", id="at the vocabulary"),
    pytest.param(4 + 6 * 16 + 7, "SIGKILL", id="tokenising"),
    pytest.param(4 + 8 * 16 + 3, "SIGKILL", id="joining"),
]


@pytest.mark.parametrize(("syncs", "by"), INSTANTS)
def test_a_build_that_was_stopped_goes_on(text, expected, cache, monkeypatch, said, small_units, alone, syncs, by):
    assert len(units.units_of([TextFile(text, "wikitext")])) == 16
    parts = stopped(text, syncs, by)
    assert (parts == 32) == (syncs > 4 + 8 * 16)
    made: list[Path] = []
    for name in ("_read", "_tokenise"):
        make = getattr(build, name)
        monkeypatch.setattr(build, name, lambda plan, i, read, make=make: made.append(i) or make(plan, i, read))
    corpus = load_corpus(text, config=CONFIG, progress=False)
    assert said == ([f"going on: {parts} of 32 parts are there"] if parts else [])
    assert len(made) == 32 - parts
    assert without_locks(cache / "corpora") == {corpus.fingerprint}
    assert content(corpus.folder) == expected


def test_helpers_end_with_who_they_help(text, cache, small_units):
    """However that ends: else they would go on with what nobody wants."""
    code = """
        import os, signal, subprocess, sys
        from bertfast.data.building import build, helpers, units
        from bertfast.data.load import load_corpus
        units.UNIT = int(sys.argv[2])
        os.sched_getaffinity = lambda pid: {0, 1}
        popen = subprocess.Popen
        helpers.subprocess.Popen = lambda *args, **more: popen(*args, **more, stdout=int(sys.argv[3]))
        build.work_off = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)
        load_corpus(sys.argv[1])
    """
    read, write = os.pipe()
    command = [sys.executable, "-c", textwrap.dedent(code), str(text), str(SMALL), str(write)]
    done = subprocess.run(command, cwd=ROOT, pass_fds=[write], stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL, done.stderr
    os.close(write)
    assert os.read(read, 1) == b""  # the helper held the other end as long as it lived
    os.close(read)
    assert not list(cache.glob("corpora/*.building/tokens-*.bin"))


def test_a_full_disk(text, expected, tmp_path, monkeypatch, capsys, small_units):
    """What was done is kept; once there is room, the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    try:
        monkeypatch.setenv("BERTFAST_CACHE", str(disk))
        command = ["build", str(text), "--out", str(tmp_path / "out"), "--tokenizer", "wordpiece"]
        command += ["--vocab-size", "1000"]
        assert corpus_command.main(command) == 2
        errors = capsys.readouterr().err
        assert re.fullmatch(rf"error: {disk}\S*: No space left on device \(corpora are kept in {disk}; .*\)\n", errors)
        assert not (tmp_path / "out").exists()
        subprocess.run(["mount", "-o", "remount,size=90M", str(disk)], check=True)
        assert corpus_command.main(command) == 0
        assert re.search(r"^going on: \d+ of \d+ parts are there\n", capsys.readouterr().err)
        assert without_locks(disk / "corpora") == set()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert content(tmp_path / "out") == expected


# ---- bad text


def test_bad_text_ends_a_build_that_helpers_share(tmp_path, monkeypatch, cache, small_units):
    """The message is one, whoever met it, and nothing is kept."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(2)), raising=False)
    path = tmp_path / "bad.txt"
    path.write_bytes(b"A good line, and a long one.\n" * 50_000 + b"\xff\n" + b"Good again.\n" * 20_000)
    with pytest.raises(InputError, match=r"bad.txt is not UTF-8: byte 1450000 "):
        load_corpus(path)
    assert without_locks(cache / "corpora") == set()


# ---- what a form leaves out


@pytest.mark.parametrize("given", [False, True])
def test_what_a_form_leaves_out_is_told(tmp_path, said, small_units, given):
    """In how many units ever, and with a tokenizer that is given, too."""
    kept, lost = "It rains . It pours .", "Nothing to cut here"
    (tmp_path / "some.txt").write_text(f"{kept}\n{kept}\n\n{lost}\n" * 4000)
    config = CorpusConfig(min_freq=1, text_form="wikitext")
    if given:
        config = CorpusConfig(str(load_corpus(tmp_path / "some.txt", config=config).folder), text_form="wikitext")
        said.clear()
    corpus = load_corpus(tmp_path / "some.txt", config=config)
    share = len(lost) / (2 * len(kept) + len(lost))
    assert corpus.description[1] == f"wikitext: 4,000 of 12,000 lines left out, {share:.1%} of the text"
    assert said == [f"warning: the form wikitext leaves out {share:.1%} of the text: --text-form names another"]
    assert len(units.units_of([TextFile(tmp_path / "some.txt", "wikitext")])) > 1


def test_what_is_whole_is_not_mentioned(tmp_path, said):
    (tmp_path / "some.txt").write_text("It rains.\n\n-----\n\nIt pours.\n")
    assert len(load_corpus(tmp_path / "some.txt", config=CorpusConfig(min_freq=1)).description) == 2
    assert said == []


# ---- duplicates

few = st.sampled_from(["a b.", "a  b.", "c.", "d e f.", "g.", "\u200b"])
documents_of_few = st.lists(st.lists(few, min_size=1, max_size=3), min_size=1, max_size=12)


def plainly(corpus: Corpus) -> list[list[list[str]]]:
    ids = [corpus.tokens[a:b].tolist() for a, b in pairwise(corpus.sentence_offsets)]
    ends = corpus.document_offsets.tolist()
    return [[corpus.tokenizer.tokens(each) for each in ids[a:b]] for a, b in pairwise(ends)]


@settings(max_examples=40, deadline=None)
@given(documents_of_few, st.sampled_from([1, 1 << 20]), st.sampled_from([1, 3, 1 << 22]), st.sampled_from([1, 1 << 20]))
def test_duplicates(tmp_path_factory, texts, batch, at_once, least):
    """Against a plain reading, whatever is read and sorted at a time."""
    folder = tmp_path_factory.mktemp("duplicates")
    texts = [*texts, ["one more."], ["and another."]]
    (folder / "some.txt").write_text("\n\n".join("\n".join(text) for text in texts), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", ignore)  # which takes most of the time
        patch.setattr(build, "BATCH", batch)
        patch.setattr(deduplication, "_SORTED", at_once)
        patch.setattr(units, "UNIT", least)
        patch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
        kept, dropped = (
            load_corpus(
                folder / "some.txt",
                config=CorpusConfig("wordpiece", min_freq=1, text_form="lines", deduplicate=deduplicate),
                cache_dir=folder / "cache",
                progress=False,
            )
            for deduplicate in (False, True)
        )
    same = [[" ".join(line.split()) for line in text if line != "\u200b"] for text in texts]
    first: list[list[str]] = []
    seen: set[str] = set()
    documents: set[tuple[str, ...]] = set()
    repeated = repeated_documents = 0
    for document in filter(None, same):
        repeated_documents += tuple(document) in documents
        documents.add(tuple(document))
        first.append([])
        for line in document:
            repeated += line in seen
            if line not in seen:
                seen.add(line)
                first[-1].append(line)

    def tokens(texts: list[list[str]]) -> list[list[list[str]]]:
        encode = kept.tokenizer.encode_sentences
        return [[kept.tokenizer.tokens(ids) for ids in encode(text)] for text in texts if text]

    assert plainly(kept) == tokens(same)
    assert plainly(dropped) == tokens(first)
    for corpus, done in ((kept, False), (dropped, True)):
        manifest = json.loads((corpus.folder / "manifest.json").read_text())
        assert manifest["duplicates"] == {"sentences": repeated, "documents": repeated_documents, "dropped": done}
        assert corpus.token_counts.tolist() == np.bincount(corpus.tokens, minlength=corpus.vocab_size).tolist()
        assert any("are equal to earlier ones" in line for line in corpus.description) == (repeated > 0)


def test_a_document_in_another_order_is_another():
    def hashes(*documents: list[str]) -> list[int]:
        found = deduplication.DocumentHashes()
        flat = list(chain.from_iterable(documents))
        return found.after(deduplication.sentence_hashes(flat), np.cumsum([len(each) for each in documents])).tolist()

    one, other, same = hashes(["a", "b"], ["b", "a"], ["a", "b"])
    assert one == same != other
    assert len(set(hashes(["a"], ["a", "a"], ["a", "b"], ["b"]))) == 4


def test_the_description_says_what_is_equal(tmp_path):
    (tmp_path / "some.txt").write_text("a b.\nc d.\n\na b.\nc d.\n\ne.\n")
    configs = [CorpusConfig(min_freq=1, text_form="lines", deduplicate=each) for each in (False, True)]
    corpora = [load_corpus(tmp_path / "some.txt", config=config) for config in configs]
    equal = "2 sentences and 1 documents are equal to earlier ones"
    assert [corpus.description[-1] for corpus in corpora] == [
        f"{equal}: --deduplicate drops them",
        f"{equal} and were dropped",
    ]
    assert [corpus.num_sentences for corpus in corpora] == [5, 3]
    assert corpora[0].fingerprint != corpora[1].fingerprint
