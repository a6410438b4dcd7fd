"""A corpus's fingerprint: a hash of the text's bytes and of every setting that the corpus depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertfast.config import CorpusConfig
from bertfast.data.text_file import TextFile
from bertfast.data.tokenizing.splitting import normalisation
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError, require_package
from bertfast.files import locked, whole_file

# Raise this with every change to the layout of a corpus's files or to the way text is processed. If the layout of a
# build's file changes, it is enough to rename that file.
FORMAT = 9


def fingerprint(
    files: Sequence[TextFile], digests: dict[Path, str], tokenizer: Tokenizer | None, config: CorpusConfig
) -> str:
    """The fingerprint in hexadecimal. `digests`: from `digests_of`; `tokenizer`: None if one is trained on the text.

    Raises InputError if there is prose, and sentencex is missing.
    """
    settings: dict[str, Any] = {
        "format": FORMAT,
        "deduplicate": config.deduplicate,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "text": [(*file.reading, digests[file.path]) for file in files],
    }
    if tokenizer is None:
        settings["tokenizer"] = (config.tokenizer, config.vocab_size, config.min_freq, *normalisation(config))
    else:
        settings["tokenizer"] = hashlib.blake2b(tokenizer.backend.to_str().encode()).hexdigest()
    if any(file.form not in ("wikitext", "lines") for file in files):
        require_package("sentencex", "cutting prose into sentences")
        settings["sentences"] = (config.language, importlib.metadata.version("sentencex"))
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def signature(path: Path) -> list[int]:
    """Size, modification time and inode: at least one of them changes when a file is written."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def digests_of(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    """The digest of each file. `memo` is a file that caches a digest while its file's signature stays the same."""
    digests = _cached(signatures, memo)
    if len(digests) < len(signatures):
        # While this process waits for the lock, another one may cache the same digests.
        with locked(memo.with_suffix(".lock"), "reading the same files"):
            digests = _cached(signatures, memo)
            new = {}
            for path in signatures.keys() - digests.keys():
                try:
                    digests[path] = digest(path)
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error.strerror}") from None
                # A file written just now isn't cached: a second write in the same clock tick keeps its signature.
                if time.time_ns() - signatures[path][1] > 2_000_000_000:
                    new[str(path.resolve())] = [signatures[path], digests[path]]
            if new:
                with whole_file(memo) as partial:
                    partial.write_text(json.dumps(_read_memo(memo) | new), encoding="utf-8")
    return digests


def _cached(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    entries = _read_memo(memo)
    digests = {}
    for path, current in signatures.items():
        match entries.get(str(path.resolve())):
            case [cached, str(digest)] if cached == current:
                digests[path] = digest
    return digests


def _read_memo(memo: Path) -> dict[str, Any]:
    try:
        entries = json.loads(memo.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        entries = None
    return entries if isinstance(entries, dict) else {}  # a damaged memo is replaced


def digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    return hash_of(path, hashlib.blake2b(digest_size=16))


def hash_of(path: Path, state: Any) -> str:
    """The hash of a file's bytes, in hexadecimal; `state`: one of hashlib's, of no bytes yet."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return str(state.hexdigest())
