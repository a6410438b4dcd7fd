"""Text to a tokenised, memory-mapped corpus: built once, streaming, and then opened at once.

A corpus is a folder in the cache: `$BERTFAST_CACHE`, else `$XDG_CACHE_HOME/bertfast`, else `~/.cache/bertfast`. Its
name is its fingerprint: of the text's bytes, and of everything that bears on what becomes of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bertfast.config import CorpusConfig
from bertfast.errors import InputError
from bertfast.files import locked, sync, whole_file
from bertfast.text import Source, TextFile, embedded_source, find_source, sentences
from bertfast.tokenizer import SpecialTokens, Tokenizer, train_word, train_wordpiece

# Any change of the files' layout, or of what a text becomes, takes a new number, and with it a new fingerprint.
FORMAT = 2
# Characters that go through the tokenizer at a time.
BATCH = 1 << 20

_TRAINERS = {"word": train_word, "wordpiece": train_wordpiece}
_CHECKSUMMED = ("tokenizer.json", "token_counts.bin")


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Documents of sentences of token ids, memory-mapped. No document and no sentence is empty.

    Sentence `s` is `tokens[sentence_offsets[s] : sentence_offsets[s + 1]]`; document `d` holds the sentences
    `document_offsets[d]` to `document_offsets[d + 1] - 1`. Of the special tokens [UNK] alone occurs.
    """

    tokens: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    """(num_tokens,): uint16 while the vocabulary fits, else uint32."""
    sentence_offsets: npt.NDArray[np.int64]
    """(num_sentences + 1,): in tokens."""
    document_offsets: npt.NDArray[np.int64]
    """(num_documents + 1,): in sentences."""
    token_counts: npt.NDArray[np.int64]
    """(vocab_size,): how often each token occurs."""
    continuation: npt.NDArray[np.uint8]
    """(vocab_size,): 1 for tokens that go on with a word."""
    tokenizer: Tokenizer
    folder: Path
    fingerprint: str
    """Hexadecimal. The same text and settings have the same one, on any machine with the same libraries."""
    description: tuple[str, ...]
    """Lines for a run's log: the sources with their forms, and the counts."""
    part: tuple[int, int] | None = None
    """Where it is a part of the corpus in `folder`: that one's documents from here to there."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Corpus:
        """Maps a built corpus into memory. Raises `InputError` where it is damaged.

        Everything is checked but the tokens, of which only the number is.
        """
        folder = Path(folder)
        try:
            return cls._open(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(
                f"the corpus in {folder} is damaged ({error}): delete that folder, and the corpus is built again"
            ) from None

    @classmethod
    def _open(cls, folder: Path) -> Corpus:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, size in manifest["sizes"].items():
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found} bytes, not {size}")
        for name, digest in manifest["blake2b"].items():
            if _digest(folder / name) != digest:
                raise ValueError(f"{name} is not what was written")
        tokenizer = Tokenizer.load(folder)
        tokens = np.memmap(folder / "tokens.bin", _token_dtype(tokenizer), "r")
        sentence_offsets = np.memmap(folder / "sentence_offsets.bin", np.int64, "r")
        document_offsets = np.memmap(folder / "document_offsets.bin", np.int64, "r")
        token_counts = np.memmap(folder / "token_counts.bin", np.int64, "r")
        for name, offsets, end in (
            ("sentence_offsets.bin", sentence_offsets, len(tokens)),
            ("document_offsets.bin", document_offsets, len(sentence_offsets) - 1),
        ):
            if offsets[0] != 0 or offsets[-1] != end or not (offsets[1:] > offsets[:-1]).all():
                raise ValueError(f"{name} doesn't ascend from 0 to {end}")
        unknown = token_counts[tokenizer.special_ids.unk] / len(tokens)
        counts = (
            f"{len(document_offsets) - 1:,} documents, {len(sentence_offsets) - 1:,} sentences, {len(tokens):,} tokens "
            f"({unknown:.1%} unknown), vocabulary {tokenizer.vocab_size:,}"
        )
        return cls(
            tokens=tokens,
            sentence_offsets=sentence_offsets,
            document_offsets=document_offsets,
            token_counts=token_counts,
            continuation=tokenizer.continuation,
            tokenizer=tokenizer,
            folder=folder,
            fingerprint=manifest["fingerprint"],
            description=(counts,),
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
        """The corpus without its last documents, and those: `share` of all, at least two.

        Raises `InputError` where fewer than two would be left.
        """
        kept = self.num_documents - max(2, round(share * self.num_documents))
        if kept < 2:
            raise InputError(f"the corpus has {self.num_documents} documents, too few to hold some out: drop --eval")
        return self.documents(0, kept), self.documents(kept, self.num_documents)


def _token_counts(tokens: npt.NDArray[Any], vocab_size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(vocab_size, np.int64)
    for begin in range(0, len(tokens), 1 << 20):  # bincount makes each an int64
        counts += np.bincount(tokens[begin : begin + (1 << 20)], minlength=vocab_size)
    return counts


def load_corpus(
    *sources: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None = None,
    config: CorpusConfig | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Corpus:
    """The corpus of some files, folders or named texts, in the order given; with none, the embedded one.

    `tokenizer` (`word`, `wordpiece` or a path) comes before `config.tokenizer`. The corpus is built where the cache
    doesn't hold it yet, with its progress on standard error.

    Raises `InputError` for a source without text or not in UTF-8, for fewer than two sentences, for a tokenizer
    without BERT's special tokens, for a cache that cannot be written, and for a damaged corpus in it.
    """
    config = config or CorpusConfig()
    if tokenizer is not None:
        config = dataclasses.replace(config, tokenizer=os.fspath(tokenizer))
    cache = (Path(cache_dir).expanduser() if cache_dir is not None else default_cache()).absolute()
    with _naming_the_cache(cache):
        found = [find_source(source, config, cache) for source in sources] or [embedded_source()]
        given = None if config.tokenizer in _TRAINERS else Tokenizer.load(config.tokenizer, config.lowercase)
        (cache / "corpora").mkdir(parents=True, exist_ok=True)
        signatures = {file.path: _signature(file.path) for source in found for file in source.files}
        digests = _digests(signatures, cache / "digests.json")
        fingerprint = _fingerprint(found, digests, given, config)
        folder = cache / "corpora" / fingerprint
        if not folder.is_dir():
            with locked(folder.with_suffix(".lock")):
                if not folder.is_dir():
                    _build(folder, found, signatures, given, config, progress)
    corpus = Corpus.open(folder)
    return dataclasses.replace(corpus, description=(*(source.description for source in found), *corpus.description))


def default_cache() -> Path:
    """The folder in which corpora and downloads are kept."""
    if os.environ.get("BERTFAST_CACHE"):
        return Path(os.environ["BERTFAST_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bertfast").expanduser()


# ---- fingerprints


def _fingerprint(
    sources: Sequence[Source], digests: dict[Path, str], given: Tokenizer | None, config: CorpusConfig
) -> str:
    files = [file for source in sources for file in source.files]
    settings: dict[str, Any] = {
        "format": FORMAT,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "text": [(*file.reading, digests[file.path]) for file in files],
    }
    if given is None:
        settings["tokenizer"] = (config.tokenizer, config.vocab_size, config.min_freq, config.lowercase)
    else:
        settings["tokenizer"] = hashlib.blake2b(given.backend.to_str().encode()).hexdigest()
    if any(file.form not in ("wikitext", "lines") for file in files):
        settings["sentences"] = (config.language, importlib.metadata.version("sentencex"))
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def _signature(path: Path) -> list[int]:
    """What changes when a file is written to."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _digests(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    """The digest of each file; the memo saves reading again those that have kept their signature."""
    known = _read_memo(memo)
    digests, learned = {}, {}
    for path, signature in signatures.items():
        key = str(path.resolve())
        if key in known and known[key][0] == signature:
            digests[path] = known[key][1]
            continue
        try:
            digests[path] = _digest(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        # Within a tick of the file system's clock a file can be written to again and keep its time.
        if time.time_ns() - signature[1] > 2_000_000_000:
            learned[key] = [signature, digests[path]]
    if learned:
        with locked(memo.with_suffix(".lock")), whole_file(memo) as partial:
            partial.write_text(json.dumps(_read_memo(memo) | learned), encoding="utf-8")
    return digests


def _read_memo(memo: Path) -> dict[str, Any]:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = None
    return known if isinstance(known, dict) else {}  # it can be made anew


def _digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---- building


def _build(
    folder: Path,
    sources: Sequence[Source],
    signatures: dict[Path, list[int]],
    given: Tokenizer | None,
    config: CorpusConfig,
    progress: bool,
) -> None:
    """Writes the corpus beside its place and then renames it, so that it is there whole or not at all."""
    building = folder.with_name(f"{folder.name}.building")
    # Whoever left this was stopped in the middle: the lock is ours.
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        files = [file for source in sources for file in source.files]
        stream = _at_least_two(_stream(files, "text", config.language, progress), sources)
        if given is None:
            # Two passes: the text is cut into sentences in the first, and the second reads these.
            spool = TextFile(building / "sentences.txt", "lines")
            tokenizer = _TRAINERS[config.tokenizer](_written(stream, spool.path), config)
            counts = _write_arrays(building, _stream([spool], "tokens", config.language, progress), tokenizer)
            spool.path.unlink()
        else:
            tokenizer = given
            counts = _write_arrays(building, stream, tokenizer)
        _check_sentences(counts["sentences"], sources)
        for path, signature in signatures.items():
            if _signature(path) != signature:
                raise InputError(f"{path} changed while it was read: run again")
        (building / "tokenizer.json").write_text(tokenizer.backend.to_str(), encoding="utf-8")
        manifest = {
            "format": FORMAT,
            "fingerprint": folder.name,
            "vocab_size": tokenizer.vocab_size,
            **counts,
            "sizes": {file.name: file.stat().st_size for file in sorted(building.iterdir())},
            "blake2b": {name: _digest(building / name) for name in _CHECKSUMMED},
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
    stored = np.arange(tokenizer.vocab_size, dtype=_token_dtype(tokenizer))
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


def _token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


# ---- files


@contextmanager
def _naming_the_cache(cache: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written, is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or cache}: {error.strerror} (corpora are kept in {cache}; BERTFAST_CACHE moves them)"
        ) from None
