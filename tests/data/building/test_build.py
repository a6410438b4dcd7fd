"""A build by any number of processes, stopped at any instant: the same bytes; duplicates against a plain count."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import noted_build, pool_jobs, rank_processes
from support.corpora import documents, without_locks
from support.messages import listening
from support.notebook import wikitext_folder
from support.processes import TINY
from support.refusal import refusal
from support.torchrun import HANGS

from bertfast import corpus as corpus_command
from bertfast.config import CorpusConfig
from bertfast.data import deduplication
from bertfast.data.building import build, units
from bertfast.data.building.pool import Pool
from bertfast.data.corpus import Corpus
from bertfast.data.load import build_corpus, load_corpus
from bertfast.data.readers.lines import ignore
from bertfast.data.sentences import Tally, sentences
from bertfast.data.text_file import TextFile
from bertfast.errors import InputError, ProcessLost

ROOT = Path(__file__).parents[3]
SMALL = 16 << 10  # bytes of a unit, of which a text then has many
CONFIG = CorpusConfig("wordpiece", vocab_size=1000)


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def small_units(monkeypatch) -> None:
    monkeypatch.setattr(units, "UNIT", SMALL)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A quarter of WikiText-2's."""
    whole = (wikitext_folder() / "valid.txt").read_bytes()
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_bytes(whole[: whole.index(b"\n", len(whole) // 4) + 1])
    return path


@pytest.fixture(scope="module")
def expected(text, tmp_path_factory) -> dict[str, bytes]:
    """What one process makes of it in one piece."""
    corpus = load_corpus(text, config=CONFIG, cache_dir=tmp_path_factory.mktemp("expected"), progress=False)
    return content(corpus.folder)


@pytest.fixture
def alone(monkeypatch) -> None:
    """On one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---- units


def of_units(files: list[TextFile], least: int) -> tuple[int, list[str]]:
    """How many units, and all their sentences."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT", least)
        found = units.units_of(files)
    assert sum(unit.size for unit in found) == sum(file.path.stat().st_size for file in files)
    return len(found), list(chain.from_iterable(unit.sentences("en", ignore, defaultdict(Tally)) for unit in found))


def one_end_each(stream: Iterable[str]) -> list[str]:
    """The stream without empty documents."""
    return [sentence for sentence, group in groupby(stream) for sentence in (group if sentence else [""])]


paragraphs = st.lists(st.sampled_from(["A b. C d é.", "", "\r", " \t", "x . y", "z", " = h = "]), max_size=40)


@settings(max_examples=60)
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


# ---- any number of processes


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """Where a pool's processes meet: see `pool_jobs.in_another`. It holds what they write for as long as the test."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with path.open("r+b", buffering=0):
        yield path


@pytest.mark.parametrize("size", [1, 3])
def test_a_pool_does_each_part_once(fifo, size):
    if size == 1:
        fifo.open("r+b", buffering=0).write(b"x")  # there is no other to wait for
    sizes: list[int] = []
    with Pool(fifo, size) as pool:
        for begin in (0, 20):
            pool.run(pool_jobs.leave_a_file, range(begin, begin + 20), sizes.append)
            assert sum(sizes) == 3 * (begin + 20)
    by = {path.name: int(path.read_text()) for path in fifo.parent.iterdir() if path != fifo}
    assert by.keys() == {f"{index}" for index in range(40)}
    assert os.getpid() in by.values()
    assert len(set(by.values())) <= size
    assert (len(set(by.values())) > 1) == (size > 1)


@pytest.mark.parametrize("size", [1, 2])
def test_an_error_comes_through_as_it_is(size):
    with pytest.raises(InputError, match=r"^part \d is bad$"), Pool(None, size) as pool:
        pool.run(pool_jobs.fail, range(9), ignore)


def test_a_pool_without_parts_starts_no_process():
    with Pool(None, 2) as pool:
        pool.run(pool_jobs.fail, [], ignore)
        assert not multiprocessing.active_children()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("parts", [2, 9])
def test_a_killed_process_is_reported(fifo, parts):
    with pytest.raises(ProcessLost, match="was killed, perhaps for want of memory"), Pool(fifo, 3) as pool:
        pool.run(pool_jobs.die, range(parts), ignore)


@pytest.mark.parametrize("given", [False, True])
def test_several_processes_change_nothing(text, tmp_path, monkeypatch, small_units, given):
    config = CONFIG
    if given:
        config = CorpusConfig(str(load_corpus(wikitext_folder() / "test.txt", config=config).folder))
    sizes: list[int] = []
    monkeypatch.setattr(build, "Pool", lambda plan, size: sizes.append(size) or Pool(plan, size))

    def corpus(cores: int) -> Corpus:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        return load_corpus(text, config=config, cache_dir=tmp_path / f"{cores}", progress=False)

    alone, together = corpus(1), corpus(3)
    assert sizes == [1, 3]
    assert content(alone.folder) == content(together.folder)
    monkeypatch.setattr(units, "UNIT", 1 << 30)
    assert content(load_corpus(text, config=config, cache_dir=tmp_path / "whole").folder) == content(alone.folder)
    assert without_locks(together.folder.parent) == {together.fingerprint}


SCRIPT = """
import sys
print("begins", flush=True)
import bertfast
from bertfast.data.building import build, units
units.UNIT = int(sys.argv[2])
build._cores = lambda: 2
bertfast.load_corpus(sys.argv[1], tokenizer="wordpiece", progress=False)
"""


def test_a_script_is_run_once(text, tmp_path, small_units):
    """Though it does not ask for its name, as a module that `multiprocessing` imports again would have to."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(text), str(SMALL)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begins\n", "")


@pytest.mark.parametrize("look", [pool_jobs.look_for_torch, pool_jobs.look_for_ctrl_c])
def test_the_other_processes_import_no_torch_and_leave_ctrl_c_to_this_one(fifo, look):
    assert "torch" in sys.modules
    found: list[int] = []
    with Pool(fifo, 2) as pool:
        pool.run(look, range(4), found.append)
    assert 1 <= sum(found) <= 4  # the parts that the other process did; 1000 more for each fault


HOLD = """
import os, sys
from bertfast.data.building import build
from bertfast.data.load import load_corpus

make = build._make_tokenizer

def hold(plan):
    print(os.getpid(), flush=True)
    sys.stdin.read()
    make(plan)

build._make_tokenizer = hold
load_corpus(sys.argv[1], tokenizer="wordpiece")
"""


@pytest.mark.parametrize("how", ["finishes", "is killed"])
def test_who_wants_the_same_corpus_waits(text, cache, how):
    """The first builds, the second says for whom it waits; where the first dies it takes over."""
    command = [sys.executable, "-c", HOLD, str(text)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as holder:
        assert holder.stdin and holder.stdout
        process = holder.stdout.readline().strip()
        said: list[str] = []

        def hear(line: str) -> None:
            said.append(line)
            if how == "is killed":
                holder.kill()
            else:
                holder.stdin.close()

        with listening(hear):
            corpus = load_corpus(text, tokenizer="wordpiece", progress=False)
    waited, *rest = said
    assert waited == f"waiting for process {process} on {platform.node()}, which is building this corpus"
    assert rest == (["resuming the build: 1 of 2 parts are there"] if how == "is killed" else [])
    assert without_locks(cache / "corpora") == {corpus.fingerprint}


def test_builds_into_one_folder_take_turns(text, tmp_path, monkeypatch, alone):
    """They share what they write before it is whole. The second finds the first one's corpus there."""
    out, met, said, refused = tmp_path / "out", threading.Event(), [], []
    other = threading.Thread(
        target=lambda: refused.append(refusal(build_corpus, wikitext_folder() / "test.txt", out=out, config=CONFIG))
    )
    join = build._join

    def meet(plan, folder, fingerprint):
        if threading.current_thread() is not other:
            other.start()
            assert met.wait(HANGS)
        met.set()
        join(plan, folder, fingerprint)

    def hear(line: str) -> None:
        said.append(line)
        met.set()

    monkeypatch.setattr(build, "_join", meet)
    with listening(hear):
        corpus = build_corpus(text, out=out, config=CONFIG)
        other.join()
    assert said == [f"waiting for process {os.getpid()} on {platform.node()}, which is building a corpus in {out}"]
    assert refused == [f"{out} holds another corpus: name another folder"]
    assert corpus.fingerprint == Corpus.open(out).fingerprint


@pytest.mark.parametrize("how", ["ends", "fails", "dies"])
def test_under_torchrun_rank_0_builds(text, expected, tmp_path, cache, how):
    """The others wait for it, and end with it."""
    options = ["--corpus", text, "--tokenizer", "wordpiece", "--vocab-size", 1000, "--steps", 1]
    arguments = [how, *map(str, [*options, "--out", tmp_path / "out", *TINY])]
    if how == "dies":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [*launcher, noted_build.__file__, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status, out, err = rank_processes.run(2, tmp_path / "ranks", noted_build.run, *arguments)
    found = [line for line in out.splitlines() if line.startswith("_")]
    if how == "ends":
        assert status == 0, err
        assert found == ["_read 0", "_make_tokenizer 0", "_tokenise 0", "_join 0"]
        [folder] = [path for path in (cache / "corpora").iterdir() if path.is_dir()]
        assert content(folder) == expected
    else:
        assert status != 0
        assert found == ["_read 0", "_make_tokenizer 0", "_tokenise 0"]
        assert "waiting for process" not in err
        assert (err.count("error: it is bad") == 1) == (how == "fails")


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
    return sum(1 for pattern in ("counts-*.json", "tokens-*.bin") for path in work.glob(pattern))


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
def test_a_stopped_build_resumes(text, expected, cache, monkeypatch, said, small_units, alone, syncs, by):
    assert len(units.units_of([TextFile(text, "wikitext")])) == 16
    parts = stopped(text, syncs, by)
    assert (parts == 32) == (syncs > 4 + 8 * 16)
    made: list[Path] = []
    for name in ("_read", "_tokenise"):
        make = getattr(build, name)
        monkeypatch.setattr(build, name, lambda plan, i, read, make=make: made.append(i) or make(plan, i, read))
    corpus = load_corpus(text, config=CONFIG, progress=False)
    assert said == ([f"resuming the build: {parts} of 32 parts are there"] if parts else [])
    assert len(made) == 32 - parts
    assert without_locks(cache / "corpora") == {corpus.fingerprint}
    assert content(corpus.folder) == expected


STAYING = """
import signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from support.pool_jobs import stay
from bertfast.data.building.pool import Pool

signal.signal(signal.SIGINT, signal.default_int_handler)
with Pool(Path(sys.argv[1]), 3) as pool:
    pool.run(stay, range(2), lambda size: None)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_processes_end_with_the_main_one(tmp_path, number):
    """However that ends: else they would go on with what nobody wants. Ctrl-C reaches all, and one tells of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-c", STAYING, str(fifo)]
    with (
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as main,
        fifo.open("rb", buffering=0) as inside,
    ):
        assert inside.read(1) + inside.read(1) == b"xx"
        if number == signal.SIGINT:
            os.killpg(main.pid, number)
        else:
            main.send_signal(number)
        assert inside.read() == b""  # all have closed it
        assert main.wait() == -number
        assert main.stderr
        said = main.stderr.read()  # to its end: of all processes
        assert said.count("Traceback") == 1 if number == signal.SIGINT else said == ""


def test_a_full_disk(text, expected, tmp_path, monkeypatch, capsys, small_units):
    """What was done is kept; once there is room, the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=375k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    try:
        monkeypatch.setenv("BERTFAST_CACHE", str(disk))
        command = ["build", str(text), "--out", str(tmp_path / "out"), "--tokenizer", "wordpiece"]
        command += ["--vocab-size", "1000"]
        assert corpus_command.main(command) == 2
        errors = capsys.readouterr().err
        assert re.search(rf"error: {disk}\S*: No space left on device \(corpora are kept in {disk}; .*\)\n", errors)
        assert not (tmp_path / "out").exists()
        subprocess.run(["mount", "-o", "remount,size=90M", str(disk)], check=True)
        assert corpus_command.main(command) == 0
        assert re.search(r"resuming the build: \d+ of \d+ parts are there\n", capsys.readouterr().err)
        assert without_locks(disk / "corpora") == set()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert content(tmp_path / "out") == expected


# ---- bad text


def test_bad_text_ends_a_build_by_several_processes(tmp_path, monkeypatch, cache, small_units):
    """The message is one, whoever met it, and nothing is kept."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(2)), raising=False)
    path = tmp_path / "bad.txt"
    path.write_bytes(b"A good line, and a long one.\n" * 50_000 + b"\xff\n" + b"Good again.\n" * 20_000)
    with pytest.raises(InputError, match=r"bad.txt is not UTF-8: byte 1450000 "):
        load_corpus(path)
    assert without_locks(cache / "corpora") == set()


# ---- what a form leaves out


@pytest.mark.parametrize("given", [False, True])
def test_what_a_form_leaves_out_is_logged(tmp_path, said, small_units, given):
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


@settings(max_examples=40)
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
    known: set[tuple[str, ...]] = set()
    repeated = repeated_documents = 0
    for document in filter(None, same):
        repeated_documents += tuple(document) in known
        known.add(tuple(document))
        first.append([])
        for line in document:
            repeated += line in seen
            if line not in seen:
                seen.add(line)
                first[-1].append(line)

    def tokens(texts: list[list[str]]) -> list[list[list[str]]]:
        encode = kept.tokenizer.encode_sentences
        return [[kept.tokenizer.tokens(ids) for ids in encode(text)] for text in texts if text]

    assert documents(kept) == tokens(same)
    assert documents(dropped) == tokens(first)
    for corpus, done in ((kept, False), (dropped, True)):
        manifest = json.loads((corpus.folder / "manifest.json").read_text())
        assert manifest["duplicates"] == {"sentences": repeated, "documents": repeated_documents, "dropped": done}
        assert corpus.token_counts.tolist() == np.bincount(corpus.tokens, minlength=corpus.vocab_size).tolist()
        assert any("are equal to earlier ones" in line for line in corpus.description) == (repeated > 0)


def test_no_tokenizer_stays_in_memory(tmp_path):
    """It would hold the text's pieces for the rest of the process."""
    (tmp_path / "some.txt").write_text("a b.\nc d.\n")
    load_corpus(tmp_path / "some.txt", config=CorpusConfig(min_freq=1, text_form="lines"))
    assert build._tokenizer.cache_info().currsize == 0


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
