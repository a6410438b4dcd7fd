"""The embedded text: prose of the standard library, without code."""

from __future__ import annotations

import re

from bertfast.data.readers.docstrings import prose
from bertfast.data.sources.embedded import library_files
from bertfast.data.sources.find import embedded_source


def test_the_embedded_text_is_prose():
    assert all(file.form == "python" for file in embedded_source().files)
    topics = next(path for path in library_files() if path.name == "topics.py")
    paragraphs = [paragraph for paragraph in prose(topics.read_bytes()) if paragraph]
    assert len(paragraphs) > 800
    for paragraph in paragraphs:
        assert re.search(r"[.!?][)\"]?$", paragraph)
        assert not re.search(r">>>|::=|\*{4}|={4}|\n", paragraph)
    assert not [path for path in library_files() if {"test", "site-packages", "idlelib"} & set(path.parts)]
