"""A corpus's fingerprint: of the text's bytes, and of everything that bears on what becomes of them."""

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

# Any change of the files' layout, a build's parts included, or of what a text becomes, takes a new number, and with it
# a new fingerprint.
FORMAT = 5


def fingerprint(
    files: Sequence[TextFile], digests: dict[Path, str], given: Tokenizer | None, config: CorpusConfig
) -> str:
    """Hexadecimal. `digests`: what `digests_of` says of the files; `given`: the tokenizer, where none is trained."""
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
    """What changes when a file is written to."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def digests_of(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    """The digest of each file; the memo saves reading again those that have kept their signature."""
    found = _remembered(signatures, memo)
    if len(found) < len(signatures):
        # Who waits here for another to read the same files finds them in the memo.
        with locked(memo.with_suffix(".lock")):
            found = _remembered(signatures, memo)
            learned = {}
            for path in signatures.keys() - found.keys():
                try:
                    found[path] = digest(path)
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error.strerror}") from None
                # Within a tick of the file system's clock a file can be written to again and keep its time.
                if time.time_ns() - signatures[path][1] > 2_000_000_000:
                    learned[str(path.resolve())] = [signatures[path], found[path]]
            if learned:
                with whole_file(memo) as partial:
                    partial.write_text(json.dumps(_read_memo(memo) | learned), encoding="utf-8")
    return found


def _remembered(signatures: dict[Path, list[int]], memo: Path) -> dict[Path, str]:
    known = _read_memo(memo)
    entries = {path: known.get(str(path.resolve())) for path in signatures}
    return {path: entry[1] for path, entry in entries.items() if entry and entry[0] == signatures[path]}


def _read_memo(memo: Path) -> dict[str, Any]:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = None
    return known if isinstance(known, dict) else {}  # it can be made anew


def digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
