"""Joins the tokenised units of a build into a corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import CorpusConfig
from bertfast.data.building.chunks import chunks
from bertfast.data.building.documents import with_documents
from bertfast.data.deduplication import DocumentHashes, repeats
from bertfast.data.fingerprint import FORMAT, digest
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.files import partial_of, sync

_FILES = ("document_offsets.bin", "sentence_offsets.bin", "token_counts.bin", "tokenizer.json", "tokens.bin")
_CHECKSUMMED = ("tokenizer.json", "token_counts.bin")


class Origin(NamedTuple):
    """What a corpus is made from."""

    sources: str
    """In words, for messages."""
    text: dict[str, Any]
    """The manifest's entry about the text."""
    fingerprint: str


def join(parts: Sequence[Path], tokenizer: Tokenizer, folder: Path, origin: Origin, config: CorpusConfig) -> None:
    """Writes the corpus beside `folder`, then renames it, so that `folder` is either complete or absent.

    Raises InputError if there are too few sentences.
    """
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        repeated, duplicates = _duplicates(parts, tokenizer, partial)
        counts = _write_arrays(parts, tokenizer, partial, repeated if config.deduplicate else None)
        del repeated  # NFS keeps a file that is removed while it is mapped, under another name
        check_sentences(counts["sentences"], origin.sources)
        for path in partial.glob("hashes-*"):
            path.unlink()
        (partial / "tokenizer.json").write_text(tokenizer.backend.to_str(), encoding="utf-8")
        manifest = {
            "format": FORMAT,
            "fingerprint": origin.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            **counts,
            "language": config.base_language,
            "text": origin.text,
            "duplicates": {**duplicates, "dropped": config.deduplicate},
            "sizes": {name: (partial / name).stat().st_size for name in _FILES},
            "blake2b": {name: digest(partial / name) for name in _CHECKSUMMED},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for name in (*_FILES, "manifest.json", "."):
            sync(partial / name)
        partial.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_sentences(count: int, sources: str) -> None:
    """Raises InputError if a text has fewer sentences than a pair."""
    if count < 2:
        raise InputError(
            f"{'one sentence only' if count else 'no text'} in {sources}: give more, or another --text-form"
        )


def _duplicates(
    parts: Sequence[Path], tokenizer: Tokenizer, folder: Path
) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """For each sentence, whether it repeats an earlier one; and the numbers of repeated sentences and documents."""
    of_sentences, of_documents = folder / "hashes-sentences", folder / "hashes-documents"
    documents = DocumentHashes()
    with of_sentences.open("wb") as sentences_out, of_documents.open("wb") as documents_out:
        for chunk in with_documents(chunks(parts, tokenizer)):
            sentences_out.write(chunk.hashes.tobytes())
            documents_out.write(documents.after(chunk.hashes, chunk.ends).tobytes())
    repeated = repeats(of_sentences)
    counts = {"sentences": int(repeated.sum()), "documents": int(repeats(of_documents).sum())}
    return repeated, counts


def _write_arrays(
    parts: Sequence[Path], tokenizer: Tokenizer, folder: Path, dropped: npt.NDArray[np.bool_] | None
) -> dict[str, Any]:
    """Writes the arrays without the dropped sentences; returns the counts. Characters are counted before dropping."""
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    num_characters = np.zeros(2, np.int64)
    num_documents = num_sentences = num_tokens = document_start = read = 0
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "sentence_offsets.bin").open("wb") as sentence_offsets,
        (folder / "document_offsets.bin").open("wb") as document_offsets,
    ):
        sentence_offsets.write(bytes(8))
        document_offsets.write(bytes(8))
        for flat, lengths, hashes, ends, _, _, characters in with_documents(chunks(parts, tokenizer)):
            if dropped is not None:
                kept = ~dropped[read : read + len(hashes)]
                read += len(hashes)
                flat = flat[np.repeat(kept, lengths)]
                ends = np.concatenate([[0], kept.cumsum()])[ends]
                lengths = lengths[kept]
            tokens.write(flat.tobytes())
            num_characters += characters
            token_counts += np.bincount(flat, minlength=tokenizer.vocab_size)
            sentence_offsets.write((num_tokens + lengths.cumsum()).tobytes())
            # Empty documents are left out.
            ends = num_sentences + ends
            ends = ends[np.diff(ends, prepend=document_start) > 0]
            document_offsets.write(ends.tobytes())

            num_tokens += len(flat)
            num_sentences += len(lengths)
            num_documents += len(ends)
            document_start = int(ends[-1]) if len(ends) else document_start
    (folder / "token_counts.bin").write_bytes(token_counts.tobytes())
    return {
        "documents": num_documents,
        "sentences": num_sentences,
        "tokens": num_tokens,
        "characters": int(num_characters[0]),
        "unknown_characters": int(num_characters[1]),
    }
