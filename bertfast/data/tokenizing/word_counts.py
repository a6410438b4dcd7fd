"""Counts a text's words, for a vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS
from bertfast.data.tokenizing.splitting import BACKENDS, Splitting

_SPECIAL_TOKEN = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
# The most distinct pieces of text, between spaces, to count before they are split: ten or twenty megabytes.
_PIECES = 1 << 16
# The most distinct words to count, in one unit of a text and in all of it: tens of megabytes, and 150.
_WORDS = 1 << 18
MOST_WORDS = 1 << 20


class WordCounter:
    """Counts words, with the text lower-cased and split as a tokenizer of a kind does it.

    Special tokens are left out. Accents and long words are kept: the counts decide later how to treat them. If there
    are too many distinct words to keep in memory, the rarest are dropped.
    """

    def __init__(self, kind: str, lowercase: bool, language: str = "en") -> None:
        self._backend = BACKENDS[kind]({}, Splitting(lowercase, language=language))
        self._words: Counter[str] = Counter()
        self._pieces: Counter[str] = Counter()  # not yet split into words

    def add(self, texts: Sequence[str], pieces: Mapping[str, int]) -> None:
        """Counts the words of texts. `pieces`: how often each piece of text between spaces occurs in them."""
        if len(self._pieces) + sum(piece not in self._pieces for piece in pieces) <= _PIECES:
            self._pieces.update(pieces)
        elif len(texts) == 1:
            self._pieces.update(pieces)
            self._split_pieces()
        else:  # which words are dropped must not depend on the number of texts at a time
            for text in texts:
                self.add([text], Counter(text.split(" ")))

    def words(self) -> Counter[str]:
        """The counts."""
        self._split_pieces()
        return self._words

    def _split_pieces(self) -> None:
        # Only the distinct pieces between spaces need splitting, and they are far fewer than all.
        normalizer, pre_tokenizer = self._backend.normalizer, self._backend.pre_tokenizer
        normalize = normalizer.normalize_str if normalizer else str
        for piece, count in self._pieces.items():
            for part in _SPECIAL_TOKEN.split(piece):
                for word, _ in pre_tokenizer.pre_tokenize_str(normalize(part)):
                    self._words[word] += count
        self._pieces.clear()
        forget_rarest(self._words, _WORDS)


def forget_rarest(words: Counter[str], most: int) -> None:
    """If there are more than `most` words, keeps the `most // 2` most frequent; of equally frequent ones, the first."""
    if len(words) > most:
        for word, _ in words.most_common()[most // 2 :]:
            del words[word]
