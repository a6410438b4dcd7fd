"""What to do with a finished run: commands to paste, with a sentence of its own corpus."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

from bertfast.data.corpus import Corpus
from bertfast.data.tokenizer import MASK

# In tokens, of a sentence that reads well, looked for among the first `_LOOKED_AT`.
_SHORT, _LONG = 5, 12
_LOOKED_AT = 1000


def next_steps(folder: Path, corpus: Corpus, max_len: int) -> Iterator[str]:
    """Lines for the log: shell commands that try the model in `folder`, trained on examples of `max_len` tokens."""
    ids = _sentence(corpus, min(_LONG, max_len - 2))
    place = _place(ids, corpus)
    masked = [*ids[:place], corpus.special_ids.mask, *ids[place + 1 :]]
    text, filled = (corpus.tokenizer.backend.decode(each, skip_special_tokens=False) for each in (masked, ids))
    model = f"--model {shlex.quote(str(folder))}"
    yield "what to try next:"
    yield f"  python -m bertfast.fill_mask {model} {shlex.quote(text if MASK in text else MASK)}"
    yield f"  python -m bertfast.encode {model} {shlex.quote(filled)}"
    yield f"  python -m bertfast.probe {model} --labels FILE.tsv"


def _sentence(corpus: Corpus, longest: int) -> list[int]:
    """The first short sentence without unknown tokens, else the beginning of the first sentence."""
    for begin, end in islice(pairwise(corpus.sentence_offsets), _LOOKED_AT):
        ids = list(map(int, corpus.tokens[begin:end]))
        if _SHORT <= len(ids) <= longest and corpus.special_ids.unk not in ids:
            return ids
    return list(map(int, corpus.tokens[: min(longest, int(corpus.sentence_offsets[1]))]))


def _place(ids: list[int], corpus: Corpus) -> int:
    """Where a word of one token stands, near the middle; the first token if there is none."""
    tokens = corpus.tokenizer.tokens(ids)
    continues = [*corpus.continuation[ids].tolist(), 0]
    words = [
        place
        for place, token in enumerate(tokens)
        if not any(continues[place : place + 2]) and any(map(str.isalnum, token))
    ]
    return words[len(words) // 2] if words else 0
