"""What a build writes down of its sentences, against the tokenizers library's encoding of each whole sentence."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trained_tokenizer import train_word, train_wordpiece
from tokenizers import models, pre_tokenizers, trainers

from bertfast.config import CorpusConfig
from bertfast.data.building.chunks import Chunk, Split, read_splits, write_split
from bertfast.data.deduplication import sentence_hashes
from bertfast.data.sentences import DOCUMENT, MARKS, PARAGRAPH, PART
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS
from bertfast.data.tokenizing.tokenizer import Tokenizer

TEXTS = ["the quick brown fox , naïve and unaffable", "漢字 of the DOG [MASK]", "fox fox the the a"] * 5

# Sentences begin and end with no white space that Python knows; some have no tokens.
pieces = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=6),
        st.sampled_from([*"\t\u00a0\u200b\u0301é漢.,", "", *SPECIAL_TOKENS, "and[SEP]more", "x" * 101, "the", "fox"]),
    ),
    max_size=8,
)
texts = pieces.map(" ".join).map(str.strip).filter(bool)
streams = st.lists(st.one_of(texts, st.sampled_from(sorted(MARKS))), max_size=20)


def bpe() -> Tokenizer:
    """A tokenizer whose tokens reach over spaces."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    special = list(SPECIAL_TOKENS)
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=80, special_tokens=special, show_progress=False))
    return Tokenizer(backend)


@pytest.fixture(scope="module", params=["word", "wordpiece", "bpe"])
def tokenizer(request) -> Tokenizer:
    if request.param == "bpe":
        return bpe()
    return {"word": train_word, "wordpiece": train_wordpiece}[request.param](TEXTS, CorpusConfig(min_freq=1))


def plainly(stream: list[str], tokenizer: Tokenizer) -> Chunk:
    """A chunk, sentence by sentence."""
    tokens, lengths, kept = [], [], []
    places: dict[str, list[int]] = {mark: [] for mark in MARKS}
    characters = unknown = 0
    unk = tokenizer.special_ids.unk
    for each in stream:
        if each in MARKS:
            places[each].append(len(kept))
            continue
        encoding = tokenizer.backend.encode(each, add_special_tokens=False)
        characters += len(each.replace(" ", ""))
        unknown += sum(
            end - begin for id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True) if id == unk
        )
        if encoding.ids:
            tokens += [unk if id in tokenizer.special_ids else id for id in encoding.ids]
            lengths.append(len(encoding.ids))
            kept.append(each)
    arrays = [tokens, lengths, sentence_hashes(kept), places[DOCUMENT], places[PART], places[PARAGRAPH]]
    return Chunk(*map(np.array, arrays), np.array([characters, unknown]))


@settings(max_examples=200)
@given(stream=streams)
def test_a_split_has_the_tokens_of_whole_sentences(tokenizer, stream):
    split = Split.of(stream, tokenizer.splits_at_spaces)
    for found, expected in zip(split.encoded(tokenizer), plainly(stream, tokenizer), strict=True):
        assert found.tolist() == expected.tolist()


def test_only_tokenizers_that_allow_it_are_asked_for_pieces(tokenizer):
    assert tokenizer.splits_at_spaces == (not isinstance(tokenizer.backend.model, models.BPE))


@settings(max_examples=50)
@given(st.lists(streams, max_size=3))
def test_what_is_written_is_read(tmp_path_factory, streams):
    path = tmp_path_factory.getbasetemp() / "split.bin"
    written = [Split.of(stream, at_spaces=True) for stream in streams]
    with path.open("wb") as file:
        for split in written:
            write_split(file, split)
    with path.open("rb") as file:
        read = list(read_splits(file))
    assert [split.pieces for split in read] == [split.pieces or [""] for split in written]
    for one, other in zip(read, written, strict=True):
        for found, expected in zip(one.chunk, other.chunk, strict=True):
            assert found.dtype == expected.dtype
            assert found.tolist() == expected.tolist()


@given(stream=streams)
def test_pieces_are_counted(stream):
    expected = Counter(piece for each in stream if each not in MARKS for piece in each.split(" "))
    assert +Counter(Split.of(stream, at_spaces=True).counts()) == expected
