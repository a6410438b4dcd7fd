"""The commands that a run ends with. test_pretrain.py runs them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bertfast.config import CorpusConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS
from bertfast.reporting.next_steps import next_steps

LONG = "it rains on and on and on and on and on and on again ."
# Its first words occur once in the corpus, and are unknown where words must occur twice.
RARE = "a rare zebra came by ."


def corpus_of(folder: Path, *sentences: str, **settings: object) -> Corpus:
    (folder / "texts.txt").write_text("".join(f"{each}\n" for each in sentences) + "\n")
    config = CorpusConfig(**{"min_freq": 1, "text_form": "lines", **settings})
    return load_corpus(folder / "texts.txt", config=config, cache_dir=folder / "cache", progress=False)


def given(corpus: Corpus, folder: str = "runs/mine", max_len: int = 64) -> tuple[str, str]:
    """The texts of the commands that fill a mask and encode."""
    heading, fill, encode, probe = next_steps(Path(folder), corpus, max_len)
    assert heading == "what to try next:"
    for line, module in ((fill, "fill_mask"), (encode, "encode"), (probe, "probe")):
        assert line.startswith("  ")
        assert shlex.split(line)[:5] == ["python", "-m", f"bertfast.{module}", "--model", folder]
    assert shlex.split(probe)[5:] == ["--labels", "FILE.tsv"]
    [masked], [whole] = shlex.split(fill)[5:], shlex.split(encode)[5:]
    assert masked.count("[MASK]") == 1
    return masked, whole


@pytest.mark.parametrize(
    ("sentences", "masked", "whole"),
    [
        (["too short", LONG, "the crane is flying over", LONG], "the crane [MASK] flying over", None),
        ([RARE, "it came by", "a crane came by", "a crane came by .", "it ."], "a crane [MASK] by .", None),
        (["( a crane ) . . .", "it ."], "( a [MASK] ) . . .", None),
        (["it's a crane , he said"] * 2, "it's a [MASK] , he said", None),
        # None is short enough: the beginning of the first.
        (
            [LONG, LONG],
            "it rains on and on and [MASK] and on and on and",
            "it rains on and on and on and on and on and",
        ),
        (["too short", "it is"], "too [MASK]", "too short"),
        # No word to mask: the first token.
        ([". . . . . .", "! !"], "[MASK] . . . . .", ". . . . . ."),
    ],
)
def test_the_sentence(tmp_path, sentences, masked, whole):
    least = 2 if RARE in sentences else 1
    corpus = corpus_of(tmp_path, *sentences, min_freq=least)
    found = given(corpus)
    assert found[0] == masked
    assert found[1] in ([whole] if whole else sentences)


def test_it_is_no_longer_than_the_model_takes(tmp_path):
    corpus = corpus_of(tmp_path, "one two three four five six", "it is")
    for max_len, words in ((7, 5), (8, 6), (64, 6)):
        assert len(given(corpus, max_len=max_len)[1].split()) == words


def test_pieces_of_words_are_not_masked(tmp_path):
    """A mask for the middle of a word, or a word's beginning, would be a riddle."""
    vocabulary = [*SPECIAL_TOKENS, "a", "crane", "fly", "##ing", "##er", "is", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    corpus = corpus_of(tmp_path, "a crane is flying .", "a flyer flyer flyer .", tokenizer=str(tmp_path / "vocab.txt"))
    assert given(corpus) == ("a [MASK] is flying.", "a crane is flying.")


@pytest.mark.parametrize("folder", ["runs/my first", "runs/$HOME's", "-runs"])
def test_a_folder_is_quoted(tmp_path, folder):
    given(corpus_of(tmp_path, "the crane is flying over", "it is"), folder)
