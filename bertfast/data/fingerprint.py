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
from bertfast.data.tokenizer import Tokenizer, normalisation
from bertfast.errors import InputError
from bertfast.files import locked, whole_file

# Raise this with every change to the layout of a corpus's or a build's files, or to the way text is processed.
FORMAT = 7


def fingerprint(
    files: Sequence[TextFile], digests: dict[Path, str], given: Tokenizer | None, config: CorpusConfig
) -> str:
    """Hexadecimal. `digests`: from `digests_of`; `given`: the tokenizer, or None if one is trained."""
    settings: dict[str, Any] = {
        "format": FORMAT,
        "deduplicate": config.deduplicate,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "text": [(*file.reading, digests[file.path]) for file in files],
    }
    if given is None:
        settings["tokenizer"] = (config.tokenizer, config.vocab_size, config.min_freq, *normalisation(config))
    else:
        settings["tokenizer"] = hashlib.blake2b(given.backend.to_str().encode()).hexdigest()
    if any(file.form not in ("wikitext", "lines") for file in files):
        settings["sentences"] = (config.language, importlib.metadata.version("sentencex"))
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def signature(path: Path) -> list[int]:
    """Size, modification time and inode: at least one of them changes when a file is written."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def digests_of(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    """The digest of each file. `memo` is a file that caches them while a file's signature stays the same."""
    found = _remembered(signatures, memo)
    if len(found) < len(signatures):
        # A process that waited here finds the other's digests in the memo.
        with locked(memo.with_suffix(".lock"), "reading the same files"):
            found = _remembered(signatures, memo)
            learned = {}
            for path in signatures.keys() - found.keys():
                try:
                    found[path] = digest(path)
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error.strerror}") from None
                # A recent one isn't cached: a second write within the same clock tick keeps the modification time.
                if time.time_ns() - signatures[path][1] > 2_000_000_000:
                    learned[str(path.resolve())] = [signatures[path], found[path]]
            if learned:
                with whole_file(memo) as partial:
                    partial.write_text(json.dumps(_read_memo(memo) | learned), encoding="utf-8")
    return found


def _remembered(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    known = _read_memo(memo)
    found = {}
    for path, now in signatures.items():
        match known.get(str(path.resolve())):
            case [before, str(digest)] if before == now:
                found[path] = digest
    return found


def _read_memo(memo: Path) -> dict[str, Any]:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        known = None
    return known if isinstance(known, dict) else {}  # a damaged one is replaced


def digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
