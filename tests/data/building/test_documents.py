"""What a document is: against a plain reading of the whole text, wherever the text is cut into units."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertfast import corpus as corpus_command
from bertfast.config import CorpusConfig
from bertfast.data.building import units
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus

pytestmark = pytest.mark.usefixtures("cache")

CONFIG = CorpusConfig(min_freq=1)


def lengths(corpus: Corpus) -> list[int]:
    """The documents' sentences."""
    return [last - first for first, last in pairwise(corpus.document_offsets.tolist())]


def paragraphs(count: int, sentences: int = 2, first: int = 0) -> str:
    """Paragraphs, a line each."""
    return "\n\n".join(
        " ".join(f"This is sentence {i} of number {first + p}." for i in range(sentences)) for p in range(count)
    )


def corpus_of(path: Path, **settings: object) -> Corpus:
    return load_corpus(path, config=dataclasses.replace(CONFIG, **settings), progress=False)


def test_a_file_is_a_document(tmp_path):
    texts = tmp_path / "texts"  # beside the cache, which is no text
    texts.mkdir()
    for i in range(5):
        (texts / f"{i}.txt").write_text(f"Title {i}\n=======\n\n{paragraphs(30 + i)}\n\n\n\n{paragraphs(40)}")
    assert lengths(corpus_of(texts)) == [1 + 2 * (70 + i) for i in range(5)]
    assert lengths(corpus_of(texts, documents="paragraph")) == [
        length for i in range(5) for length in (1, *[2] * (70 + i))
    ]


def test_a_record_is_a_document_or_its_paragraphs_are(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "It rains. We go.\\n\\nIt stops."}\n{"text": "We stay."}\n')
    assert lengths(corpus_of(path)) == [3, 1]
    assert lengths(corpus_of(path, documents="paragraph")) == [2, 1, 1]


def test_lines_in_a_file_that_is_one_document(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("One a.\nTwo b.\n\nThree c.\n")
    assert lengths(corpus_of(path, text_form="lines")) == [2, 1]
    assert lengths(corpus_of(path, text_form="lines", documents="file")) == [3]


@pytest.mark.parametrize(
    "between",
    [
        "\n\n\n\n",
        "\n\n\f\n",
        "\n\f",
        "\n\n-----\n\n",
        "\n\n* * *\n\n",
        "\n\nA heading\n\n",
        "\n\n## A heading\n",
        "\n\nA heading\n---------\n\n",
        "\n\n=======\nHeading\n=======\n",
    ],
)
def test_the_parts_of_a_file_that_is_alone(tmp_path, between):
    """However they are shown; a heading belongs to what comes after it."""
    path = tmp_path / "book.txt"
    path.write_text(between.join(paragraphs(count) for count in (10, 30, 15)))
    heading = "eading" in between
    assert lengths(corpus_of(path)) == [20, 60 + heading, 30 + heading]


def test_parts_that_are_short_stay_together(tmp_path):
    path = tmp_path / "changes.txt"
    path.write_text("\n\n".join(f"Version {i}\n---------\n\n{paragraphs(2)}" for i in range(40)))
    assert lengths(corpus_of(path)) == [20] * 10


def test_a_dump_without_parts(tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text(paragraphs(500, 3))
    assert lengths(corpus_of(path)) == [102] * 14 + [72]


def test_one_endless_paragraph_has_documents_too(tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text("It was dark. The rain fell.\n" * 5000)
    found = lengths(corpus_of(path))
    assert sum(found) == 10_000
    assert max(found) < 1000
    assert min(found[:-1]) >= 100


def test_a_large_file_among_others_is_divided(tmp_path):
    (tmp_path / "a.txt").write_text(paragraphs(200))
    (tmp_path / "b.txt").write_text(paragraphs(20_000))
    found = lengths(corpus_of(tmp_path))
    assert found == [400, *[100] * 400]


pieces = st.sampled_from(
    [
        "One a. Two b.\n",
        "Three c\n",
        "\n",
        "\n\n",
        "\f\n",
        "----\n",
        "# Four\n",
        "Five\n====\n",
        " \n",
        "Six d.\f",
        "\r\n",
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(pieces, max_size=60), st.sampled_from(["file", "paragraph", "auto"]), st.sampled_from([1, 30, 200]))
def test_documents_do_not_depend_on_units(tmp_path_factory, content, documents, least):
    """Where there are paragraph ends to cut at."""
    folder = tmp_path_factory.mktemp("units")
    text = "".join(
        piece + "More e. And f.\n\n" * (i % 3) for i, piece in enumerate(["Begin g.\n\nOn h.\n\n", *content])
    )
    (folder / "some.txt").write_bytes(text.encode())
    found = []
    for unit in (least, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(units, "UNIT", unit)
            patch.setattr("os.fsync", lambda descriptor: None)
            patch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
            patch.setattr("bertfast.data.building.documents.SHORT", 2)
            patch.setattr("bertfast.data.building.documents.LONG", 5)
            corpus = load_corpus(
                folder / "some.txt",
                config=dataclasses.replace(CONFIG, documents=documents, text_form="plain"),
                cache_dir=folder / str(unit),
                progress=False,
            )
            found.append((lengths(corpus), corpus.sentence_offsets.tolist(), corpus.tokens.tolist()))
    assert found[0] == found[1]


def test_info_tells_what_documents_are(tmp_path, capsys):
    out, text = tmp_path / "out", tmp_path / "text"
    text.mkdir()
    for i in range(3):
        (text / f"{i}.txt").write_text(paragraphs(2 + i))
    assert corpus_command.main(["build", str(text), "--min-freq", "1", "--out", str(out)]) == 0
    capsys.readouterr()
    fill = ["info", str(out), "--segments", "fill", "--max-len"]
    assert corpus_command.main([*fill, "20"]) == 0
    output = capsys.readouterr().out
    assert "a document is a file; half have 6 sentences or fewer, a tenth 4 or fewer, a tenth more than 6" in output
    assert "warning" not in output
    assert corpus_command.main([*fill, "50"]) == 0
    assert "warning: 44.4% of the sentences stand in documents that could fill an example" in capsys.readouterr().out
