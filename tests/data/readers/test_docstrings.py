"""The prose of Python files, without code."""

from __future__ import annotations

from bertfast.data.readers.docstrings import prose
from bertfast.data.sentences import MARKS, sentences
from bertfast.data.text_file import TextFile


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
