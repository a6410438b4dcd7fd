"""BERT's special tokens."""

from __future__ import annotations

from typing import NamedTuple

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


class SpecialTokens(NamedTuple):
    """The ids of BERT's special tokens; 0 to 4 in a vocabulary trained here."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
