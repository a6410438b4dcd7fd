"""Text to the files of a corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bertfast.config import CorpusConfig
from bertfast.corpus.corpus import token_dtype
from bertfast.corpus.fingerprint import FORMAT, digest, signature
from bertfast.errors import InputError
from bertfast.files import sync
from bertfast.text import Source, TextFile, sentences
from bertfast.tokenizer import TRAINERS, Tokenizer

# Characters that go through the tokenizer at a time.
BATCH = 1 << 20
_CHECKSUMMED = ("tokenizer.json", "token_counts.bin")


def build(
    folder: Path,
    fingerprint: str,
    sources: Sequence[Source],
    signatures: dict[Path, list[int]],
    given: Tokenizer | None,
    config: CorpusConfig,
    progress: bool,
) -> None:
    """Writes the corpus beside its place and then renames it, so that it is there whole or not at all."""
    building = folder.with_name(f"{fingerprint}.building")
    # Whoever left this was stopped in the middle: the lock is ours.
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        files = [file for source in sources for file in source.files]
        stream = _at_least_two(_stream(files, "text", config.language, progress), sources)
        if given is None:
            # Two passes: the text is cut into sentences in the first, and the second reads these.
            spool = TextFile(building / "sentences.txt", "lines")
            tokenizer = TRAINERS[config.tokenizer](_written(stream, spool.path), config)
            counts = _write_arrays(building, _stream([spool], "tokens", config.language, progress), tokenizer)
            spool.path.unlink()
        else:
            tokenizer = given
            counts = _write_arrays(building, stream, tokenizer)
        _check_sentences(counts["sentences"], sources)
        for path, before in signatures.items():
            if signature(path) != before:
                raise InputError(f"{path} changed while it was read: run again")
        (building / "tokenizer.json").write_text(tokenizer.backend.to_str(), encoding="utf-8")
        manifest = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "vocab_size": tokenizer.vocab_size,
            **counts,
            "sizes": {file.name: file.stat().st_size for file in sorted(building.iterdir())},
            "blake2b": {name: digest(building / name) for name in _CHECKSUMMED},
        }
        (building / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in (*building.iterdir(), building):
            sync(path)
        building.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _stream(files: Sequence[TextFile], stage: str, language: str, progress: bool) -> Iterator[str]:
    size = sum(file.path.stat().st_size for file in files)
    with tqdm(desc=stage, total=size, unit="B", unit_scale=True, delay=1, leave=False, disable=not progress) as bar:
        for file in files:
            yield from sentences(file, language, bar.update)


def _at_least_two(stream: Iterable[str], sources: Sequence[Source]) -> Iterator[str]:
    """The stream itself; at its end, `InputError` where it held fewer than two sentences."""
    count = 0
    for sentence in stream:
        count += sentence != ""
        yield sentence
    _check_sentences(count, sources)


def _check_sentences(count: int, sources: Sequence[Source]) -> None:
    if count < 2:
        names = ", ".join(source.description for source in sources)
        raise InputError(f"{'one sentence only' if count else 'no text'} in {names}: give more, or another --text-form")


def _written(stream: Iterable[str], path: Path) -> Iterator[str]:
    """The stream itself, and at its end a copy of it in the file."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for sentence in stream:
            file.write(f"{sentence}\n")
            yield sentence


def _write_arrays(folder: Path, stream: Iterable[str], tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokenises the stream into the folder's arrays; returns the counts of documents, sentences and tokens."""
    # The name of a special token in a training text is no such token: left alone, it would be a boundary or a mask
    # where there is none.
    stored = np.arange(tokenizer.vocab_size, dtype=token_dtype(tokenizer))
    stored[list(tokenizer.special_ids)] = tokenizer.special_ids.unk
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    num_documents = num_sentences = num_tokens = document_start = 0
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "sentence_offsets.bin").open("wb") as sentence_offsets,
        (folder / "document_offsets.bin").open("wb") as document_offsets,
    ):
        sentence_offsets.write(bytes(8))
        document_offsets.write(bytes(8))
        for batch in _batches(stream):
            ids = tokenizer.encode_sentences(batch)
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            flat = stored[np.fromiter(chain.from_iterable(ids), np.int64, lengths.sum())]
            tokens.write(flat.tobytes())
            token_counts += np.bincount(flat, minlength=tokenizer.vocab_size)

            # A sentence without a token is dropped, and then a document without a sentence.
            written = lengths > 0
            sentence_offsets.write((num_tokens + lengths[written].cumsum()).tobytes())
            at_end = np.fromiter((sentence == "" for sentence in batch), bool, len(batch))
            ends = (num_sentences + written.cumsum())[at_end]
            ends = ends[np.diff(ends, prepend=document_start) > 0]
            document_offsets.write(ends.tobytes())

            num_tokens += len(flat)
            num_sentences += int(written.sum())
            num_documents += len(ends)
            document_start = int(ends[-1]) if len(ends) else document_start
    (folder / "token_counts.bin").write_bytes(token_counts.tobytes())
    return {"documents": num_documents, "sentences": num_sentences, "tokens": num_tokens}


def _batches(stream: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for sentence in stream:
        batch.append(sentence)
        size += len(sentence)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    yield batch
