"""Corpora equal the notebook's data and a simple tokenisation; a build leaves a whole corpus or none."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.corpora import documents, without_locks
from support.notebook import import_d2l, notebook_paragraphs, wikitext_folder
from support.refusal import refusal
from support.trained_tokenizer import train_word

from bertfast.config import CorpusConfig
from bertfast.data import fingerprint as fingerprints
from bertfast.data import load
from bertfast.data.building import build
from bertfast.data.corpus import Corpus
from bertfast.data.load import build_corpus, default_cache, load_corpus
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError

ROOT = Path(__file__).parents[2]
TEXT = "It was dark.\nThe rain fell.\nNobody came.\n\nThe sun shone.\nIt was bright.\n\n"
ANY = CorpusConfig(min_freq=1)


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def text(tmp_path) -> Path:
    """A text file, old enough that its digest is cached."""
    path = tmp_path / "some.txt"
    path.write_text(TEXT)
    os.utime(path, (0, 0))
    return path


# ---- content


def test_wikitext_is_what_the_notebook_trains_on(monkeypatch):
    d2l = import_d2l()
    monkeypatch.setattr(d2l.random, "shuffle", lambda paragraphs: None)
    paragraphs = [[sentence.split() for sentence in p] for p in notebook_paragraphs()]
    vocabulary = d2l.Vocab([s for p in paragraphs for s in p], min_freq=5)
    expected = [
        [["[UNK]" if vocabulary[word] == vocabulary.unk else word for word in s] for s in paragraph if s]
        for paragraph in paragraphs
    ]
    corpus = load_corpus(wikitext_folder(), tokenizer="word")
    assert corpus.vocab_size == 6899
    assert documents(corpus) == expected


def test_arrays(text):
    corpus = load_corpus(text, config=ANY)
    assert documents(corpus) == [
        [["it", "was", "dark."], ["the", "rain", "fell."], ["nobody", "came."]],
        [["the", "sun", "shone."], ["it", "was", "bright."]],
    ]
    assert (corpus.num_documents, corpus.num_sentences, corpus.num_tokens) == (2, 5, 14)
    assert corpus.sentence_offsets.tolist() == [0, 3, 6, 8, 11, 14]
    assert corpus.document_offsets.tolist() == [0, 3, 5]
    assert isinstance(corpus.tokens, np.memmap)
    assert corpus.tokens.dtype == np.uint16
    assert corpus.sentence_offsets.dtype == corpus.document_offsets.dtype == corpus.token_counts.dtype == np.int64
    assert corpus.token_counts.tolist() == np.bincount(corpus.tokens, minlength=corpus.vocab_size).tolist()
    assert corpus.continuation.dtype == np.uint8
    assert corpus.continuation.shape == (corpus.vocab_size,)
    assert corpus.special_ids == (0, 1, 2, 3, 4)
    assert corpus.description == (
        f"{text} (lines)",
        "2 documents, 5 sentences, 14 tokens (0.0% unknown), vocabulary 16",
    )


@pytest.mark.parametrize(
    ("content", "settings", "warned"),
    [
        ("Он пришёл домой. Она была там.", {}, True),
        ("Он пришёл домой. Она была там.", {"tokenizer": "wordpiece"}, True),
        ("Он пришёл домой. Она была там.", {"language": "ru"}, False),
        ("Он пришёл домой. Она была там.", {"text_form": "lines"}, False),  # which needs no rules
        ("He came home. It was «дом».", {}, False),
        ("1 + 1 = 2. 2 + 2 = 4.", {}, False),
    ],
)
def test_english_rules_for_another_script_are_a_warning(tmp_path, said, content, settings, warned):
    (tmp_path / "a.txt").write_text(f"{content}\n\n" * 9)
    corpus = load_corpus(tmp_path / "a.txt", config=CorpusConfig(min_freq=1, **settings), cache_dir=tmp_path / "cache")
    expected = (
        "100% of the letters are not Latin, and sentences end by the rules for English: --language names the text's"
    )
    assert [warning.startswith(expected) for warning in corpus.warnings] == [True] * warned
    assert any(expected in line for line in said) == warned


def test_unknown_words_are_counted(text):
    corpus = load_corpus(text, config=CorpusConfig(min_freq=2))
    assert corpus.token_counts[corpus.special_ids.unk] == 8
    words = text.read_text().lower().split()
    rare = sum(len(word) for word in words if words.count(word) == 1) / sum(map(len, words))
    assert f"14 tokens (57.1% unknown, with {rare:.1%} of the characters)" in corpus.description[-1]


lines = st.lists(st.sampled_from(["a b.", "c d e.", "\u200b", " ", "", "\u200b \u200b", "f."]), max_size=30)


@settings(max_examples=60)
@given(lines, st.sampled_from([1, 5, 1 << 20]), st.sampled_from(["word", "wordpiece"]))
@example(["", "\u200b", "", "f."], 1, "wordpiece")  # a document ends where two batches meet
def test_nothing_empty_is_kept(tmp_path_factory, lines, batch, tokenizer):
    """No sentence or document is empty. WordPiece makes no token of a zero-width space."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["a b c d e f.", *lines, "a b c d e f."]
    (folder / "some.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "BATCH", batch)
        config = CorpusConfig(tokenizer, min_freq=1, text_form="lines")
        corpus = load_corpus(folder, config=config, cache_dir=folder / "cache", progress=False)
    expected: list[list[list[str]]] = [[]]
    for line in lines:
        tokens = corpus.tokenizer.tokens(corpus.tokenizer.encode_sentences([line])[0])
        if tokens:
            expected[-1].append(tokens)
        elif not line.strip():
            expected.append([])
    assert documents(corpus) == [document for document in expected if document]


def test_special_tokens_in_the_text_are_unknown_words(tmp_path):
    """As tokens, a [MASK] or [SEP] in the text would be a false prediction or boundary."""
    path = tmp_path / "some.txt"
    path.write_text("a [MASK] b.\nc [SEP] [PAD] [CLS] d.\n\ne [UNK].\n[mask].\n")
    corpus = load_corpus(path, config=ANY)
    assert documents(corpus) == [
        [["a", "[UNK]", "b."], ["c", "[UNK]", "[UNK]", "[UNK]", "d."]],
        [["e", "[UNK]", "."], ["[mask]."]],
    ]


def test_sources_keep_their_order(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} one.\n{name} two.\n")
    forward = load_corpus(tmp_path / "a.txt", tmp_path / "b.txt", config=ANY)
    backward = load_corpus(tmp_path / "b.txt", tmp_path / "a.txt", config=ANY)
    assert documents(forward) == documents(backward)[::-1]
    assert len(forward.description) == 3


def test_a_large_vocabulary_takes_uint32(tmp_path):
    (tmp_path / "some.txt").write_text("\n".join(f"w{i} w{i + 1}." for i in range(0, 70_000, 2)))
    corpus = load_corpus(tmp_path / "some.txt", config=CorpusConfig(min_freq=1, text_form="lines"))
    assert corpus.vocab_size == 70_005
    assert corpus.tokens.dtype == np.uint32
    assert len(set(corpus.tokens.tolist())) == 70_000


def test_a_given_tokenizer(text, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    train_word(["the sun was it"], ANY).save(tmp_path / "tokenizer", 64)
    corpus = load_corpus(text, tokenizer=tmp_path / "tokenizer")
    assert corpus.vocab_size == 9
    assert documents(corpus)[1] == [["the", "sun", "[UNK]"], ["it", "was", "[UNK]"]]


@pytest.mark.parametrize("name", ["word", "wordpiece", "char"])
def test_a_path_is_never_a_kind_of_tokenizer(text, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    train_word(["the sun was it"], ANY).save(name, 64)
    corpus = load_corpus(text, tokenizer=Path(name))
    assert documents(corpus)[1] == [["the", "sun", "[UNK]"], ["it", "was", "[UNK]"]]
    build_corpus(text, out=Path(name) / name, config=CorpusConfig(f"./{name}"))
    monkeypatch.chdir(name)
    assert load_corpus(text, tokenizer=load_corpus(name).folder).fingerprint == corpus.fingerprint


def test_the_embedded_text():
    corpus = load_corpus(progress=False)
    assert corpus.num_tokens > 200_000
    assert corpus.num_sentences - corpus.num_documents > 10_000
    assert corpus.num_documents > 300
    assert corpus.token_counts[corpus.special_ids.unk] < 0.08 * corpus.num_tokens
    commonest = corpus.token_counts.argsort()[-12:].tolist()
    assert {"the", "of", "is", "a"} <= set(corpus.tokenizer.tokens(commonest))
    assert "Python" in corpus.description[0]


# ---- once built, then opened


@pytest.fixture
def no_build(monkeypatch):
    """A function after whose call building is an error."""

    def forbid():
        def refuse(*arguments):
            raise AssertionError("built again")

        monkeypatch.setattr(load, "build", refuse)
        monkeypatch.setattr(Tokenizer, "encode_pieces", refuse)

    return forbid


def test_the_second_load_only_opens(text, no_build, capfd):
    first = load_corpus(text, config=ANY)
    no_build()
    capfd.readouterr()
    second = load_corpus(str(text), config=ANY)
    assert documents(second) == documents(first)
    assert second.fingerprint == first.fingerprint
    assert second.description == first.description
    assert capfd.readouterr() == ("", "")


def test_a_file_is_digested_again_only_if_it_may_have_changed(text, no_build, monkeypatch):
    load_corpus(text, config=ANY)
    no_build()
    digested = []
    digest = fingerprints.digest
    monkeypatch.setattr(fingerprints, "digest", lambda path: digested.append(path) or digest(path))
    load_corpus(text, config=ANY)
    assert text not in digested
    os.utime(text, (1, 1))
    load_corpus(text, config=ANY)
    assert text in digested


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"PATH": 5}', '{"PATH": [1, 2]}', '{"PATH": []}'])
def test_a_damaged_memo_is_replaced(text, cache, content):
    first = load_corpus(text, config=ANY)
    memo = cache / "digests.json"
    whole = memo.read_bytes()
    memo.write_text(content.replace("PATH", str(text)))
    assert load_corpus(text, config=ANY).fingerprint == first.fingerprint
    assert memo.read_bytes() == whole


def test_the_digest_of_a_file_just_written_is_not_cached(text):
    """A file written twice within a tick of the file system's clock can keep its size and times."""
    now = time.time_ns() + 3600 * 10**9  # in the future, so that it counts as just written on a slow machine, too
    os.utime(text, ns=(now, now))
    first = load_corpus(text, config=ANY)
    text.write_text(TEXT.replace("sun", "fog"))
    os.utime(text, ns=(now, now))
    assert load_corpus(text, config=ANY).fingerprint != first.fingerprint


def test_the_same_bytes_elsewhere_are_the_same_corpus(text, tmp_path, no_build):
    first = load_corpus(text, config=ANY)
    no_build()
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    assert load_corpus(copy, config=ANY).fingerprint == first.fingerprint


def test_the_fingerprint_depends_on_content_and_settings(text, tmp_path, monkeypatch):
    def fingerprint(*sources, **changes):
        return load_corpus(*(sources or [text]), config=CorpusConfig(**{"min_freq": 1, **changes})).fingerprint

    more = tmp_path / "more.txt"
    more.write_text(TEXT + "One . more.\n")
    found = [
        fingerprint(),
        fingerprint(text, more),
        fingerprint(more, text),
        fingerprint(more),
        fingerprint(more, text_form="wikitext"),
        fingerprint(min_freq=2),
        fingerprint(vocab_size=7),
        fingerprint(lowercase=False),
        fingerprint(text_form="plain"),
        fingerprint(text_form="plain", language="de"),
        fingerprint(tokenizer="wordpiece"),
        fingerprint(tokenizer=str(load_corpus(text, config=ANY).folder)),
    ]
    monkeypatch.setattr(fingerprints, "FORMAT", 0)
    found.append(fingerprint())
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)
    monkeypatch.undo()
    assert fingerprint(language="de") == found[0]  # a language doesn't matter where each line is a sentence


def test_open(text):
    corpus = load_corpus(text, config=ANY)
    again = Corpus.open(corpus.folder)
    assert documents(again) == documents(corpus)
    assert again.fingerprint == corpus.fingerprint
    assert again.description == corpus.description[-1:]


def test_the_default_cache(monkeypatch):
    assert default_cache() == Path(os.environ["BERTFAST_CACHE"])
    monkeypatch.delenv("BERTFAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/bertfast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/bertfast"


def test_torch_is_not_imported():
    code = (
        "import bertfast, sys; bertfast.load_corpus(sys.argv[1], tokenizer='wordpiece'); print('torch' in sys.modules)"
    )
    for _ in range(2):
        done = python(code, wikitext_folder())
        assert done.stdout == "False\n", done.stderr


# ---- builds that are interrupted or fail


def python(code: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


KILLED = """
import os, signal, sys
from bertfast.data.building import build, join
from bertfast.data.load import load_corpus
from bertfast.config import CorpusConfig

place, name = sys.argv[2].split(":")
module = {"build": build, "join": join, "os": os}[place]
original = getattr(module, name)

def kill(*arguments):
    if name != "_batches":
        original(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(module, name, kill)
load_corpus(sys.argv[1], config=CorpusConfig(min_freq=1))
"""


@pytest.mark.parametrize("place", ["build:_batches", "join:_write_arrays", "os:fsync", "join:sync"])
def test_a_build_after_a_killed_one_is_whole(text, cache, place):
    done = python(KILLED, text, place)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert all(name.endswith((".building", ".bertfast-partial")) for name in without_locks(cache / "corpora"))
    corpus = load_corpus(text, config=ANY)
    assert corpus.num_tokens == 14
    assert without_locks(cache / "corpora") == {corpus.fingerprint}


def test_two_builders_at_once(cache):
    code = """
        import sys
        from bertfast.data.load import load_corpus
        print(load_corpus(sys.argv[1]).num_tokens)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(wikitext_folder())]
    builders = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for builder in builders:
        output, errors = builder.communicate()
        assert output == "427588\n", errors
    assert without_locks(cache / "corpora") == {load_corpus(wikitext_folder()).fingerprint}


def test_a_full_disk(text, cache, tmp_path):
    """A limit on the size of files stands in for it. Finished work is kept, and no part of a corpus is left."""
    tokenizer = load_corpus(text, config=ANY, cache_dir=tmp_path / "other").folder
    text.write_text("the rain fell.\n" * 20_000)
    code = """
        import resource, sys
        from bertfast.data.load import load_corpus
        from bertfast.errors import InputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            load_corpus(sys.argv[1], tokenizer=sys.argv[2])
        except InputError as error:
            print(error)
    """
    for kind in ("word", tokenizer):  # with word, the first large file holds sentences; with a tokenizer, tokens
        done = python(code, text, kind)
        expected = f"{cache}: File too large (corpora are kept in {cache}; BERTFAST_CACHE moves them)\n"
        assert done.stdout == expected
        assert all(name.endswith(".building") for name in without_locks(cache / "corpora"))
    assert load_corpus(text).num_sentences == 20_000


def test_a_cache_that_cannot_be_written(text, tmp_path):
    with pytest.raises(InputError, match=r"some.txt/corpora: Not a directory \(corpora are kept in"):
        load_corpus(text, cache_dir=text)


def test_a_text_that_changes_during_the_build(text, cache, monkeypatch):
    word_counter = build.WordCounter

    def change(*arguments):
        text.write_text("something else")
        return word_counter(*arguments)

    monkeypatch.setattr(build, "WordCounter", change)
    with pytest.raises(InputError, match=r"some.txt changed while it was read: run again"):
        load_corpus(text, config=ANY)
    assert without_locks(cache / "corpora") == set()


# ---- damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    offsets = np.fromfile(path, np.int64)
    offsets[[1, 2]] = offsets[[2, 1]]
    offsets.tofile(path)


def shift(path: Path) -> None:
    offsets = np.fromfile(path, np.int64)
    offsets[0] = 1
    offsets.tofile(path)


def delete(path: Path) -> None:
    path.unlink()


DAMAGE = [
    ("tokens.bin", truncate, "tokens.bin has 27 bytes, not 28"),
    ("tokens.bin", delete, "No such file"),
    ("sentence_offsets.bin", truncate, "sentence_offsets.bin has 47 bytes, not 48"),
    ("sentence_offsets.bin", swap, "sentence_offsets.bin doesn't ascend from 0 to 14"),
    ("sentence_offsets.bin", shift, "sentence_offsets.bin doesn't ascend from 0 to 14"),
    ("document_offsets.bin", swap, "document_offsets.bin doesn't ascend from 0 to 5"),
    ("token_counts.bin", flip, "token_counts.bin is not what was written"),
    ("tokenizer.json", flip, "tokenizer.json is not what was written"),
    ("manifest.json", truncate, ""),
    ("manifest.json", lambda path: path.write_text("{}"), "'format'"),
    ("manifest.json", lambda path: path.write_text("[1]"), ""),
    ("manifest.json", lambda path: path.write_text("[" * 100_000), "recursion"),
    (
        "manifest.json",
        lambda path: path.write_text(re.sub(r'("characters": )\d+', r"\g<1>0", path.read_text())),
        "zero",
    ),
    ("manifest.json", delete, "No such file"),
]


@pytest.mark.parametrize(("name", "harm", "reason"), DAMAGE)
def test_a_damaged_corpus_is_refused(text, name, harm, reason):
    corpus = load_corpus(text, config=ANY)
    harm(corpus.folder / name)
    if (name, harm) == ("manifest.json", truncate):
        truncate(corpus.folder / name)  # the last byte is a line feed
    for message, way_out in (
        (refusal(load_corpus, text, config=ANY), "delete that folder, and the corpus is built again"),
        (refusal(Corpus.open, corpus.folder), "build it again from its text, into another folder"),
    ):
        assert message.startswith(f"the corpus in {corpus.folder} is damaged (")
        assert message.endswith(f"): {way_out}")
        assert reason in message


def test_a_corpus_of_another_version_is_not_damaged(text, tmp_path):
    """And its folder need not be deleted."""
    manifest = build_corpus(text, out=tmp_path / "mine", config=ANY).folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {fingerprints.FORMAT}', '"format": 0'))
    line = f"the corpus in {tmp_path}/mine: build it again from its text, into another folder"
    for message in (
        refusal(Corpus.open, tmp_path / "mine"),
        refusal(load_corpus, tmp_path / "mine"),
        refusal(build_corpus, text, out=tmp_path / "mine", config=ANY),
    ):
        assert message == f"another version of bertfast wrote {line}"


# ---- errors


@pytest.mark.parametrize("tokenizer", ["word", "wordpiece"])
def test_too_little_text(tmp_path, cache, tokenizer):
    path = tmp_path / "some.txt"
    for content, held in (("", "no text"), ("\n \n", "no text"), ("Only this one.\n", "one sentence only")):
        path.write_text(content)
        assert refusal(load_corpus, path, tokenizer=tokenizer) == (
            f"{held} in {path} (plain): give more, or another --text-form"
        )
    assert without_locks(cache / "corpora") == set()


def test_too_little_text_with_a_given_tokenizer(text, tmp_path):
    folder = load_corpus(text, config=ANY).folder
    for content, held in (("", "no text"), ("One. ", "one sentence only")):
        (tmp_path / "few.txt").write_text(content)
        assert refusal(load_corpus, tmp_path / "few.txt", tokenizer=folder).startswith(held)


def test_text_without_tokens(text, tmp_path):
    """Two sentences of characters that have no tokens."""
    config = CorpusConfig("wordpiece", min_freq=1)
    folder = load_corpus(text, config=config).folder
    (tmp_path / "few.txt").write_text("\u200b\n\u200b\n")
    assert "no text" in refusal(load_corpus, tmp_path / "few.txt", config=CorpusConfig(str(folder), text_form="lines"))


def test_words_too_rare(text):
    assert (
        refusal(load_corpus, text)
        == "no word occurs 5 times: give more text, a lower --min-freq or --tokenizer wordpiece"
    )


def test_errors_in_sources_and_tokenizers(tmp_path, cache):
    (tmp_path / "bad.txt").write_bytes(b"A good line.\n" * 200_000 + b"\xff")
    assert "bad.txt is not UTF-8: byte 2600000 " in refusal(load_corpus, tmp_path / "bad.txt")
    assert without_locks(cache / "corpora") == set()
    assert refusal(load_corpus, tmp_path / "nowhere") == f"no such file or folder: {tmp_path}/nowhere"
    assert refusal(load_corpus, tmp_path / "bad.txt", tokenizer="no/such").startswith(
        "no such tokenizer: no/such; give word"
    )


def test_a_text_without_read_permission(text, monkeypatch):
    """As the system refuses it; root may read everything."""
    opened = Path.open

    def refuse(path, *rest, **options):
        if path == text:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(load_corpus, text) == f"cannot read {text}: Permission denied"


def test_the_manifest(text):
    corpus = load_corpus(text, config=ANY)
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    assert manifest["fingerprint"] == corpus.folder.name == corpus.fingerprint
    assert (manifest["documents"], manifest["sentences"], manifest["tokens"]) == (2, 5, 14)
    assert {path.name for path in corpus.folder.iterdir()} == {*manifest["sizes"], "manifest.json"}
    assert list(SPECIAL_TOKENS) == corpus.tokenizer.tokens(range(5))
