"""The embedded text: prose of the standard library, without code."""

from __future__ import annotations

import re

from bertfast.data.sentences import MARKS, sentences
from bertfast.data.sources.embedded import library_files, prose
from bertfast.data.sources.find import embedded_source
from bertfast.data.text_file import TextFile


def test_the_embedded_text_is_prose():
    assert all(file.form == "python" for file in embedded_source().files)
    topics = next(path for path in library_files() if path.name == "topics.py")
    paragraphs = [paragraph for paragraph in prose(topics.read_bytes()) if paragraph]
    assert len(paragraphs) > 800
    for paragraph in paragraphs:
        assert re.search(r"[.!?][)\"]?$", paragraph)
        assert not re.search(r">>>|::=|\*{4}|={4}|\n", paragraph)
    assert not [path for path in library_files() if {"test", "site-packages", "idlelib"} & set(path.parts)]


def test_docstrings_lose_code_tables_and_signatures():
    code = '''
"""A module of little use.

Usage:

    >>> twice(2)
    4

It ends (e.g.) like this.
"""
class C:
    """A class that has a table.

    ====  ====
    some  cell
    ====  ====

    1. A point that is a sentence.
    """
    def f(self):
        """f(self) -> None"""
        def inner():
            "It is nested in a function."
'''
    assert [paragraph for paragraph in prose(code.encode()) if paragraph] == [
        "A module of little use.",
        "It ends (e.g.) like this.",
        "A class that has a table.",
        "A point that is a sentence.",
        "It is nested in a function.",
    ]


def test_punctuation_is_set_off_by_spaces(write):
    path = write(b'"""It isn\'t self.x as one might hope (see "f(a)"), e.g. here. And so on it goes."""', "some.py")
    stream = sentences(TextFile(path, "python"))
    assert [" ".join(sentence.split()) for sentence in stream if sentence not in MARKS] == [
        """It isn't self.x as one might hope ( see " f(a ) " ) , e.g . here .""",
        "And so on it goes .",
    ]
