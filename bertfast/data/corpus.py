"""A tokenised corpus, memory-mapped from its folder."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.config import CorpusConfig
from bertfast.data.fingerprint import FORMAT, digest
from bertfast.data.tokenizing.special_tokens import SpecialTokens
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.files import expanded

# A form that leaves out more than this share of a text is probably the wrong one.
_MUCH_LEFT_OUT = 0.05
# If more than this share of a text's characters are in unknown words, the tokenizer doesn't suit it.
_MUCH_UNKNOWN = 0.2


def is_built(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a built corpus. One that can't be looked into doesn't."""
    # Path.is_file raises OSError where a folder may not be searched.
    return all(os.path.isfile(expanded(path) / name) for name in ("manifest.json", "tokens.bin"))  # noqa: PTH113


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Documents of sentences of token ids, memory-mapped. No document and no sentence is empty.

    Sentence `s` is `tokens[sentence_offsets[s] : sentence_offsets[s + 1]]`; document `d` holds the sentences
    `document_offsets[d]` to `document_offsets[d + 1] - 1`. [UNK] is the only special token that occurs.
    """

    tokens: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    """(num_tokens,): uint16 if the vocabulary fits, else uint32."""
    sentence_offsets: npt.NDArray[np.int64]
    """(num_sentences + 1,): in tokens."""
    document_offsets: npt.NDArray[np.int64]
    """(num_documents + 1,): in sentences."""
    token_counts: npt.NDArray[np.int64]
    """(vocab_size,): how often each token occurs."""
    continuation: npt.NDArray[np.uint8]
    """(vocab_size,): 1 for tokens that continue a word."""
    tokenizer: Tokenizer
    folder: Path
    fingerprint: str
    """Hexadecimal. Equal for equal text and settings, on any machine with the same libraries."""
    description: tuple[str, ...]
    """Lines for the log: the sources with their forms, and the figures."""
    figures: tuple[str, ...]
    """The lines of `description` that name no source: the counts, what a form left out, duplicates."""
    names: tuple[str, ...]
    """The sources' names, without the folders that contain them: for example, ("my_texts", "hf:owner/name")."""
    language: str
    """The code of the text's language, two or three letters, from the settings."""
    warnings: tuple[str, ...]
    """Lines about probable mistakes, such as a tokenizer that doesn't suit the text."""
    document: str
    """What a document is, in words: for example, "a file"."""
    part: tuple[int, int] | None = None
    """The range of documents, end excluded, if this is a part of the corpus in `folder`; else None."""

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], way_out: str = "build it again from its text, into another folder"
    ) -> Corpus:
        """Maps a built corpus into memory. Of the tokens only the number is checked.

        Raises `InputError`, with `way_out`, if the corpus is damaged or if another version of bertfast wrote it.
        """
        folder = expanded(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            if manifest["format"] == FORMAT:
                return cls._open(folder, manifest)
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            InputError,
        ) as error:
            raise InputError(f"the corpus in {folder} is damaged ({error}): {way_out}") from None
        raise InputError(f"another version of bertfast wrote the corpus in {folder}: {way_out}")

    @classmethod
    def _open(cls, folder: Path, manifest: dict[str, Any]) -> Corpus:
        for name, size in manifest["sizes"].items():
            actual = (folder / name).stat().st_size
            if actual != size:
                raise ValueError(f"{name} has {actual} bytes, not {size}")
        for name, written in manifest["blake2b"].items():
            if digest(folder / name) != written:
                raise ValueError(f"{name} is not what was written")
        tokenizer = Tokenizer.load(folder)
        tokens = np.memmap(folder / "tokens.bin", token_dtype(tokenizer), "r")
        sentence_offsets = np.memmap(folder / "sentence_offsets.bin", np.int64, "r")
        document_offsets = np.memmap(folder / "document_offsets.bin", np.int64, "r")
        token_counts = np.memmap(folder / "token_counts.bin", np.int64, "r")
        for name, offsets, end in (
            ("sentence_offsets.bin", sentence_offsets, len(tokens)),
            ("document_offsets.bin", document_offsets, len(sentence_offsets) - 1),
        ):
            if offsets[0] != 0 or offsets[-1] != end or not (offsets[1:] > offsets[:-1]).all():
                raise ValueError(f"{name} doesn't ascend from 0 to {end}")
        kinds = manifest["text"]["documents"]
        document = ", ".join(f"{what} ({count:,} files)" if len(kinds) > 1 else what for what, count in kinds.items())
        left_out = [line for form, counts in manifest["text"]["forms"].items() for line in _left_out(form, counts)]
        unknown = token_counts[tokenizer.special_ids.unk] / len(tokens)
        characters = manifest["unknown_characters"] / manifest["characters"]
        counts = (
            f"{len(document_offsets) - 1:,} documents, {len(sentence_offsets) - 1:,} sentences, {len(tokens):,} tokens "
            f"({unknown:.1%} unknown{f', with {characters:.1%} of the characters' * bool(characters)}), "
            f"vocabulary {tokenizer.vocab_size:,}{f' ({tokenizer.normalisation})' * bool(tokenizer.normalisation)}"
        )
        figures = (*left_out, counts, *_duplicates(manifest["duplicates"]))
        if not isinstance(manifest["language"], str):
            raise ValueError("its language is not a string")
        return cls(
            tokens=tokens,
            sentence_offsets=sentence_offsets,
            document_offsets=document_offsets,
            token_counts=token_counts,
            continuation=tokenizer.continuation,
            tokenizer=tokenizer,
            folder=folder,
            fingerprint=manifest["fingerprint"],
            document=document,
            description=figures,
            figures=figures,
            names=(folder.name,),
            language=manifest["language"],
            warnings=(
                *_left_out_warnings(manifest["text"]["forms"]),
                *_unknown_warning(characters),
                *_language_warning(manifest, tokenizer, token_counts),
            ),
        )

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def special_ids(self) -> SpecialTokens:
        return self.tokenizer.special_ids

    @property
    def num_documents(self) -> int:
        return len(self.document_offsets) - 1

    @property
    def num_sentences(self) -> int:
        return len(self.sentence_offsets) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def documents(self, first: int, last: int) -> Corpus:
        """The corpus of the documents `first` to `last - 1`. The tokens are not copied."""
        sentences = slice(int(self.document_offsets[first]), int(self.document_offsets[last]) + 1)
        tokens = slice(int(self.sentence_offsets[sentences][0]), int(self.sentence_offsets[sentences][-1]))
        return dataclasses.replace(
            self,
            tokens=self.tokens[tokens],
            sentence_offsets=self.sentence_offsets[sentences] - tokens.start,
            document_offsets=self.document_offsets[first : last + 1] - sentences.start,
            token_counts=_token_counts(self.tokens[tokens], self.vocab_size),
            part=(self.part[0] + first, self.part[0] + last) if self.part else (first, last),
        )

    def split(self, share: float) -> tuple[Corpus, Corpus]:
        """Two corpora, of the first and of the last documents; the second has `share` of them, at least two.

        Raises `InputError` if fewer than two documents would be left.
        """
        kept = self.num_documents - max(2, round(share * self.num_documents))
        if kept < 2:
            raise InputError(f"the corpus has {self.num_documents} documents, too few to hold some out: drop --eval")
        return self.documents(0, kept), self.documents(kept, self.num_documents)


_JUDGED_TOKENS = 1000  # the most frequent ones, to tell the script of a text
_LAST_LATIN = "\u024f"


def _left_out(form: str, counts: dict[str, int]) -> Iterator[str]:
    """A line about the text that the form left out, if any."""
    if counts["lines_left_out"]:
        share = counts["characters_left_out"] / counts["characters"]
        yield f"{form}: {counts['lines_left_out']:,} of {counts['lines']:,} lines left out, {share:.1%} of the text"


def _left_out_warnings(forms: dict[str, dict[str, int]]) -> Iterator[str]:
    for form, counts in forms.items():
        if counts["characters_left_out"] > _MUCH_LEFT_OUT * counts["characters"]:
            share = counts["characters_left_out"] / counts["characters"]
            yield f"the form {form} leaves out {share:.1%} of the text: --text-form names another"


def _unknown_warning(share: float) -> Iterator[str]:
    if share > _MUCH_UNKNOWN:
        yield (
            f"{share:.1%} of the characters are in words that the vocabulary lacks: --tokenizer wordpiece divides "
            "words, char takes each character; or give a lower --min-freq, or a tokenizer of the text's language"
        )


def _language_warning(
    manifest: dict[str, Any], tokenizer: Tokenizer, token_counts: npt.NDArray[np.int64]
) -> Iterator[str]:
    """A warning if the default language, English, has ended the sentences of a text in another script."""
    if manifest["language"] != CorpusConfig.language or not manifest["text"]["forms"].keys() & {"paragraphs", "plain"}:
        return
    letters = other = 0
    for token in np.argsort(token_counts)[-_JUDGED_TOKENS:].tolist():
        if token not in tokenizer.special_ids:
            word = filter(str.isalpha, tokenizer.backend.id_to_token(token) or "")
            beyond_latin = [letter > _LAST_LATIN for letter in word]
            letters += len(beyond_latin) * int(token_counts[token])
            other += sum(beyond_latin) * int(token_counts[token])
    if other > letters / 2:
        yield (
            f"{other / letters:.0%} of the letters are not Latin, and sentences end by the rules for English: "
            "--language names the text's language"
        )


def _duplicates(counts: dict[str, int]) -> Iterator[str]:
    """A line about duplicates, if there are any."""
    if counts["sentences"]:
        equal = f"{counts['sentences']:,} sentences and {counts['documents']:,} documents are equal to earlier ones"
        yield f"{equal} and were dropped" if counts["dropped"] else f"{equal}: --deduplicate drops them"


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The dtype of the tokens of a corpus with this tokenizer."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def _token_counts(tokens: npt.NDArray[Any], vocab_size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(vocab_size, np.int64)
    for begin in range(0, len(tokens), 1 << 20):  # bincount converts its input to int64
        block = np.bincount(tokens[begin : begin + (1 << 20)], minlength=vocab_size)
        if len(block) > vocab_size:
            raise InputError("the corpus is damaged: it holds tokens that the vocabulary lacks; build it again")
        counts += block
    return counts
