"""Texts for tokenizers: a few sentences, WikiText-2's validation and test text, and any Unicode."""

from __future__ import annotations

import functools

from hypothesis import strategies as st
from support.notebook import wikitext_folder

from bertfast.data.sentences import sentences
from bertfast.data.text_file import TextFile
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS

TEXTS = [
    "The quick brown fox jumps over the lazy dog .",
    "the Fox , the DOG , and the naïve café in Zürich",
    "unaffable unbelievable affable believable",
    "漢字 かな 한국 Ελλάδα Σ ΟΔΟΣ i̇ İ ß ﬁ ½",
    "[MASK] , [UNK] and[SEP]more [mask]",
] * 5

# Letters with and without case, accents alone and composed, ideographs, spaces of all kinds, controls, specials.
unicode_text = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from([*" \t\u00a0\u2028\x0b\x0c\x1c\x85\u200b\u0301éÉİΣß漢.,'-#", *SPECIAL_TOKENS, "##ing", "the"]),
    ),
    max_size=12,
).map("".join)


@functools.cache
def wikitext_sentences() -> tuple[str, ...]:
    files = (TextFile(wikitext_folder() / name, "wikitext") for name in ("test.txt", "valid.txt"))
    return tuple(sentence for file in files for sentence in sentences(file) if sentence)
