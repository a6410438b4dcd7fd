"""Chooses where documents end in text that has no document boundaries: a book, a dump, a long page.

A document ends at the end of a part once it has `SHORT` sentences, and at the end of a paragraph once it has `LONG`. So
headings close together don't make documents of a few sentences, and text without headings is divided, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from bertfast.data.building.chunks import Chunk

SHORT = 20
LONG = 100


def with_documents(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks of a whole corpus, in order, with places chosen from `parts` and `paragraphs` added to `ends`."""
    length = 0  # of the document that continues from the previous chunk
    for chunk in chunks:
        begin = -length
        ends: list[int] = []
        places = np.concatenate([chunk.ends, chunk.parts, chunk.paragraphs])
        least = np.repeat([0, SHORT, LONG], [len(chunk.ends), len(chunk.parts), len(chunk.paragraphs)])
        order = np.argsort(places, kind="stable")
        for end, enough in zip(places[order].tolist(), least[order].tolist(), strict=True):
            if end - begin >= enough:
                ends.append(end)
                begin = end
        length = len(chunk.lengths) - begin
        yield chunk._replace(ends=np.array(ends, np.int64))
