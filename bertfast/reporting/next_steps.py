"""What to try after a run: commands to paste, with a sentence from its corpus."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

from bertfast.data.corpus import Corpus
from bertfast.data.tokenizing.special_tokens import MASK

# Tokens of a sentence that suits an example, searched for among the first `_SEARCHED` sentences.
_SHORT, _LONG = 5, 12
_SEARCHED = 1000


def next_steps(folder: Path, corpus: Corpus, max_len: int) -> Iterator[str]:
    """Lines for the log: shell commands that try the model in `folder`, trained on examples of `max_len` tokens."""
    ids = _sentence(corpus, min(_LONG, max_len - 2))
    index = _word_to_mask(ids, corpus)
    masked = [*ids[:index], corpus.special_ids.mask, *ids[index + 1 :]]
    text, filled = (corpus.tokenizer.backend.decode(each, skip_special_tokens=False) for each in (masked, ids))
    model = f"--model {shlex.quote(str(folder))}"
    yield "what to try next:"
    yield f"  python -m bertfast.fill_mask {model} {shlex.quote(text if MASK in text else MASK)}"
    yield f"  python -m bertfast.encode {model} {shlex.quote(filled)}"
    yield f"  python -m bertfast.probe {model} --labels FILE.tsv"


def _sentence(corpus: Corpus, longest: int) -> list[int]:
    """The first short sentence without unknown tokens, else the beginning of the first sentence."""
    for begin, end in islice(pairwise(corpus.sentence_offsets), _SEARCHED):
        ids = list(map(int, corpus.tokens[begin:end]))
        if _SHORT <= len(ids) <= longest and corpus.special_ids.unk not in ids:
            return ids
    return list(map(int, corpus.tokens[: min(longest, int(corpus.sentence_offsets[1]))]))


def _word_to_mask(ids: list[int], corpus: Corpus) -> int:
    """The index of a word of one token, near the middle of the sentence; 0 if there is none."""
    tokens = corpus.tokenizer.tokens(ids)
    continues = [*corpus.continuation[ids].tolist(), 0]
    words = [
        index
        for index, token in enumerate(tokens)
        if not any(continues[index : index + 2]) and any(map(str.isalnum, token))
    ]
    return words[len(words) // 2] if words else 0
