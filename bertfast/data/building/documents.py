"""Where documents end in a text that doesn't say so itself: a book, a dump, a long page.

A document ends where a part of the text does, if it has `SHORT` sentences, and where a paragraph does, if it has
`LONG`. So headings close together don't make documents of a few sentences, and text without any has documents too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from bertfast.data.building.chunks import Chunk

SHORT = 20
LONG = 100


def with_documents(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks of a whole corpus, in order; `ends` gains the places chosen among `parts` and `paragraphs`."""
    length = 0  # of the document that goes on from the chunk before
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
