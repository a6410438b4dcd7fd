"""The form of a text is detected from its file's name and its beginning."""

from __future__ import annotations

import gzip
import json
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wikitext import WIKITEXT

from bertfast.config import CorpusConfig
from bertfast.data import text_form
from bertfast.data.sentences import MARKS, sentences
from bertfast.data.text_form import LARGE, detect

PROSE = "It was a dark night, and\nthe rain fell. Nobody\ncame.\n\nIn the morning the sun\nshone again. All was well.\n"
LINES = "It was dark.\nThe rain fell!\nNobody came.\n\nThe sun shone again.\n“All was well.”\n"
RECORDS = "".join(json.dumps({"body": each}) + "\n" for each in (PROSE, LINES))
# No full stops: lines with room for the next word, and wrapped prose without.
TITLES = "".join(f"{'word ' * (3 + i * 7 % 11)}end of line {i}\n" for i in range(30))
WRAPPED = textwrap.fill("a word or two and some more of them then yet others without any end in sight " * 20, 60)
VERSE = WRAPPED.replace("two", "Two. It")
CHINESE = "".join(f"{'我们今天去学校读书写字' * (1 + i * 7 % 5)}第{i}天\n" for i in range(500))
PROTEINS = "".join(f"{'MKVLAAGIVG' * (3 + i * 7 % 11)}{'ACDEFGHIKL'[i % 10]}\n" for i in range(300))
READS = "".join(f"{'ACGT' * 37}{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}\n" for i in range(300))
SMILES = "".join(f"CC(=O){'C' * (1 + i % 9)}N1CCC(CC1)c1ccc(F)cc1.Cl\n" for i in range(300))
THAI = "".join(f"{'ผมไปโรงเรียนทุกวัน ' * (1 + i * 7 % 5)}วันที่{i}\n" for i in range(100))
LOG = "".join(f"2024-01-{i % 28 + 1:02} INFO worker {i} of {'node ' * (i * 7 % 11)}is up, or not\n" for i in range(99))
# Logs whose lines have about the same length, and full stops within them.
HEARTBEATS = "".join(f"2024-01-{i % 28 + 1:02} 10:{i % 60:02} INFO worker-{i % 7} is up. OK\n" for i in range(99))
ACCESSES = "".join(
    f'10.0.{i % 4}.{i % 250} - - "GET /{"abc"[i % 3]}.html HTTP/1.1" 200 {i * 97 % 1000}\n' for i in range(99)
)
SYSLOG = "".join(
    f"Jan {i % 28 + 1:2} host{i % 3} cron[{100 + i}]: session opened for user a{i % 9}\n" for i in range(99)
)
# Wrapped text, some of which looks like lines.
QUOTED = textwrap.indent(WRAPPED, "> ")
NUMBERED = "".join(f"{i}. {textwrap.fill('a clause of a contract ' * 9, 60)}\n\n" for i in range(20))
WRAPPED_CHINESE = textwrap.fill(CHINESE.replace("\n", "。"), 40)
WRAPPED_THAI = textwrap.fill(THAI.replace("\n", " "), 70)
CHANGES = "".join(
    f"{i}: Fix what it does when a line of\ntext is too long. It is not now.\nTests are there.\n\n" for i in range(20)
)
JAPANESE = "".join(
    f"{'日付の指定は' * (1 + i % 4)}、\n時刻の指定の後に{'も' * (i % 5)}\n行わなければならない。\n\n" for i in range(20)
)
# Manuals: headings and options, most of which end unlike sentences, above wrapped text.
MANUAL = "".join(
    f"HEADING {i}\n  -{'abc'[i % 3]}, --option-{i}\n    an option that does something, as it {'is ' * (i % 4)}asked\n"
    f"    to do{' by whom'[: i % 7]}{'. See there.' if i % 3 == 0 else ''}\n\n"
    for i in range(30)
)
JAPANESE_MANUAL = "".join(
    f"オプション{i}\n  -{'abc'[i % 3]}, --option-{i}\n    ファイルを{'すべて' * (i % 4)}表示し、指定された\n"
    f"    ものだけを出力{'する。' if i % 3 == 0 else ''}\n\n"
    for i in range(30)
)
# Lyrics, titles or chats with few full stops, anywhere.
STANZAS = "".join(
    f"{'word ' * (3 + i * 7 % 11)}end of line {i}{'.' * (i % 5 == 0)}\n{chr(10) * (i % 4 == 3)}" for i in range(80)
)
LINE_BY_LINE = (CHINESE, PROTEINS, READS, SMILES, THAI, LOG, HEARTBEATS, ACCESSES, SYSLOG)
PARAGRAPHS = "It was dark. The rain fell.\n\nIn the morning the sun shone. All was well.\n"


def packed(content: str, name: str) -> bytes:
    """What a file of this name and content holds."""
    return gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("wiki.train.tokens", "anything", "wikitext"),
        ("wiki.test.raw", "anything", "wikitext"),
        ("train.txt", WIKITEXT, "wikitext"),
        ("mine.text", WIKITEXT, "wikitext"),
        ("train.txt", PROSE, "plain"),
        ("mine.txt", LINES, "lines"),
        ("mine.txt", PARAGRAPHS, "plain"),
        ("mine.txt", LINES.replace("\n\n", "\n"), "plain"),
        ("mine.txt", "", "plain"),
        ("mine.txt", TITLES, "lines"),
        ("mine.txt", TITLES.replace("7\n", "7\n\n"), "lines"),
        ("mine.txt", TITLES.replace("\n", "\n\n"), "plain"),
        ("mine.txt", TITLES.replace("line", "Line. It goes on"), "plain"),
        ("mine.txt", WRAPPED, "plain"),
        ("mine.txt", VERSE, "plain"),
        ("mine.html", TITLES, "plain"),
        *((f"mine{suffix}", text, "plain") for suffix in (".md", ".RST", ".md.gz") for text in (TITLES, LINES)),
        *(("mine.txt", text, "lines") for text in LINE_BY_LINE),
        *(("mine.txt", text, "plain") for text in (WRAPPED_CHINESE, WRAPPED_THAI, QUOTED, NUMBERED)),
        ("mine.txt", CHANGES, "plain"),
        ("mine.txt", JAPANESE, "plain"),
        *(("mine.txt", text, "plain") for text in (MANUAL, JAPANESE_MANUAL)),
        ("mine.txt", STANZAS, "lines"),
        ("mine.txt", " = Results = \n" + PROSE * 20, "plain"),  # a heading as in WikiText
        ("mine.txt", " = Results = \n = = More = = \n" + PROSE * 20, "plain"),
        ("mine.jsonl", json.dumps({"text": WIKITEXT}), "plain"),
        ("mine.html", WIKITEXT, "plain"),
        ("mine.txt", LINES * 10_000 + WIKITEXT, "lines"),  # only the beginning counts
    ],
)
def test_the_form_is_detected(write, name, content, form):
    assert detect(write(packed(content, name), name), CorpusConfig(), alone=True).form == form


LONG = "It was a dark night, and the rain fell. Nobody came. " * 3
SHORT = "Home\nAbout us\nContact\n"


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.txt", f"{SHORT}{LONG}\n{LONG}\n", "paragraphs"),
        ("a.txt", f"{LONG}\n{LONG * 2}\n\n{LONG}\n{LONG}\n", "paragraphs"),  # not lines, though all end like sentences
        ("a.txt", f"{LONG}\n\n{LONG}\n\n", "plain"),  # the same, with blank lines between paragraphs
        ("a.txt", textwrap.fill(LONG * 9, 100), "plain"),
        ("a.txt", "\n\n".join(textwrap.fill(LONG * 5, width) for width in [132] * 9), "plain"),
        ("a.txt", f"{LONG}\n{textwrap.fill(LONG * 9, 100)}", "plain"),  # one long line does not make it so
        ("a.txt", (("Word et al. (2019) " * 9 + ".\n") * 3 + "\n") * 4, "lines"),  # long sentences
        ("a.md", f"{LONG}\n{LONG}\n", "plain"),
        ("a.html", f"{LONG}<br>{LONG}", "plain"),
        (
            "a.txt",
            "夜色渐深，没有人来。雨下得很大，路上一个人也没有，只有风在吹。他走了很久，还是没有看到灯光，心里有些害怕起来，想起了家里的老母亲。\n"
            * 3,
            "paragraphs",
        ),
        ("a.txt", "夜色渐深，没有人来。雨下得很大，路上一个人也没有。\n" * 3, "plain"),
        ("a.jsonl", json.dumps({"text": f"{SHORT}{LONG}\n{LONG}"}) + "\n", "paragraphs"),
        ("a.jsonl", (json.dumps({"text": LONG}) + "\n") * 5, "plain"),  # records of one line
        ("a.jsonl", json.dumps({"text": textwrap.fill(LONG * 9, 70)}) + "\n", "plain"),
    ],
)
def test_paragraphs_in_one_line_each(write, name, content, form):
    assert detect(write(content, name), CorpusConfig(), alone=True).form == form


def test_forms_of_lines_lose_no_line(write):
    for text in LINE_BY_LINE:
        stream = sentences(detect(write(text), CorpusConfig(), alone=True))
        assert [each for each in stream if each not in MARKS] == [line.strip() for line in text.splitlines()]


def test_a_given_form_is_used(write):
    assert detect(write(WIKITEXT), CorpusConfig(text_form="plain"), alone=True).form == "plain"


@pytest.mark.parametrize(
    ("name", "content", "form", "alone", "among_others"),
    [
        ("a.txt", PROSE, "plain", "parts", "auto"),
        ("a.md", LINES, "plain", "parts", "auto"),
        ("a.txt.gz", PROSE, "plain", "parts", "auto"),
        ("a.txt", LINES, "lines", "auto", "auto"),  # blank lines end documents
        ("a.txt", TITLES, "lines", "parts", "auto"),  # there are none
        ("a.txt", f"\n\n{TITLES}\n\n", "lines", "parts", "auto"),
        ("a.txt", f"{TITLES}\n{TITLES}", "lines", "auto", "auto"),
        ("a.txt", WIKITEXT, "wikitext", "auto", "auto"),
        ("wiki.test.tokens", PROSE, "wikitext", "auto", "auto"),
        ("a.html", TITLES, "plain", "auto", "auto"),
        ("a.jsonl", RECORDS, "plain", "auto", "auto"),
        ("a.txt", "", "plain", "parts", "auto"),
        ("a.txt", "\n \n", "plain", "parts", "auto"),
        ("a.txt", "one line", "plain", "parts", "auto"),
    ],
)
def test_form_and_documents(write, name, content, form, alone, among_others):
    path = write(packed(content, name), name)
    config = CorpusConfig(text_column="body" if name.endswith(".jsonl") else CorpusConfig.text_column)
    for is_alone, documents in ((True, alone), (False, among_others)):
        found = detect(path, config, is_alone)
        assert (found.path, found.form, found.documents) == (path, form, documents)


@pytest.mark.parametrize(("size", "documents"), [(LARGE, "auto"), (LARGE + 1, "parts")])
def test_a_large_file_among_others_is_divided(write, size, documents):
    text = PROSE * (size // len(PROSE) + 1)
    path = write(text[: size - 1] + "\n", "a.txt")
    assert path.stat().st_size == size
    assert detect(path, CorpusConfig(), alone=False).documents == documents


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_given_is_not_detected(write, alone):
    for form in ("plain", "lines", "wikitext"):
        for name in ("a.txt", "wiki.train.raw"):
            assert detect(write(WIKITEXT, name), CorpusConfig(text_form=form), alone).form == form
    for documents in ("file", "paragraph"):
        found = detect(write(PROSE, "a.txt"), CorpusConfig(documents=documents), alone)
        assert found.documents == documents


@pytest.mark.parametrize(
    ("name", "content", "kind", "column"),
    [
        ("a.txt", PROSE, "text", ""),
        ("a.unknown", PROSE, "text", ""),
        ("a.html", PROSE, "html", ""),
        ("a.jsonl", RECORDS, "jsonl", "body"),
        ("a.json", RECORDS, "jsonl", "body"),
        ("a.json", json.dumps([{"body": PROSE}]), "json", "body"),
        ("a.csv", "n;body\n1;a, b\n", "csv", "body"),
        ("a.tsv.gz", "n\tbody\n1\ta b\n", "tsv", "body"),
    ],
)
def test_records_have_a_column(write, name, content, kind, column):
    found = detect(write(packed(content, name), name), CorpusConfig(text_column="body", delimiter=";"), alone=True)
    assert (found.kind, found.column, found.delimiter) == (kind, column, ";")


kinds = [
    "",
    " ",
    "It was dark.",
    "and the rain",
    "= Head =",
    "a b . c d .",
    "2024-01-12 up",
    "我们今天去学校。",
    "word",
]


@given(st.lists(st.sampled_from(kinds), max_size=40))
def test_only_the_beginning_is_looked_at(tmp_path_factory, lines):
    """The file's form is that of its first lines, up to the one that completes the sample."""
    folder, size, first = tmp_path_factory.mktemp("forms"), 0, []
    for line in lines:
        first.append(line)
        size += len(line) + 1
        if size > 100:
            break
    for name, some in (("whole.txt", lines), ("first.txt", first)):
        (folder / name).write_bytes("".join(f"{line}\n" for line in some).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_form, "SAMPLE", 100)
        whole = detect(folder / "whole.txt", CorpusConfig(), True)
    beginning = detect(folder / "first.txt", CorpusConfig(), True)
    assert (whole.form, whole.documents) == (beginning.form, beginning.documents)
