"""The form of Unicode in which text is tokenised: what looks the same is then the same to every tokenizer."""

from __future__ import annotations

import unicodedata


def nfc(text: str) -> str:
    """The text in Unicode NFC: a letter and its accents are one character, if there is one."""
    return unicodedata.normalize("NFC", text)
