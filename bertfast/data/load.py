"""Loads a corpus from the cache, and builds it there first if needed."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bertfast.config import CorpusConfig, flag
from bertfast.data.building.build import Plan, build
from bertfast.data.building.units import units_of
from bertfast.data.corpus import Corpus, is_built
from bertfast.data.fingerprint import digests_of, fingerprint, signature
from bertfast.data.sources.find import embedded_source, find_source, last_name
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.data.tokenizing.training import TRAINERS
from bertfast.errors import InputError
from bertfast.files import expanded, locked

logger = logging.getLogger(__name__)

Sources = Sequence[str | os.PathLike[str]]


def load_corpus(
    *sources: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None = None,
    config: CorpusConfig | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Corpus:
    """The corpus of the given files, folders or named texts, in that order; without any, the embedded corpus.

    A single source can also be a folder that `build_corpus` wrote. `tokenizer` (`word`, `wordpiece`, `char` or a
    path) overrides `config.tokenizer`. A corpus that the cache doesn't hold yet is built, with progress on standard
    error.

    Raises `InputError` for a source without text or not in UTF-8, for fewer than two sentences, for a tokenizer
    without BERT's special tokens, for a cache that cannot be written, and for a damaged corpus in it; `ProcessLost`
    if a process of the build is killed.
    """
    config = config or CorpusConfig()
    if tokenizer is not None:
        # An absolute path, or a folder called word would be taken for the name.
        name = tokenizer if isinstance(tokenizer, str) else str(expanded(tokenizer).absolute())
        config = dataclasses.replace(config, tokenizer=name)
    if any(map(is_built, sources)):
        return _open_built(sources, config)
    cache = (expanded(cache_dir) if cache_dir is not None else default_cache()).absolute()
    return _open_or_build(sources, config, cache, None, progress)


def build_corpus(*sources: str | os.PathLike[str], out: Path, config: CorpusConfig) -> Corpus:
    """Like `load_corpus`, but writes the corpus to `out`.

    Raises `InputError` if that folder holds anything else, or if no folder can be renamed to it.
    """
    if any(map(is_built, sources)):
        raise InputError("a source is a corpus that is already built: give text")
    folder = Path(os.path.realpath(out))  # the end of a symbolic link, which is not replaced
    if not is_built(folder):
        _check_place(out, folder)
    return _open_or_build(sources, config, default_cache().absolute(), folder, True)


def _check_place(out: Path, folder: Path) -> None:
    """Raises `InputError` if no corpus can be written to `folder`, which --out `out` leads to."""
    if (os.path.lexists(folder) and not folder.is_dir()) or _is_used(folder):
        raise InputError(f"--out {out} is in use and holds no corpus: name another folder")
    if folder.is_mount():
        raise InputError(f"--out {out} is a mount point: name a folder in it")
    above = next(each for each in folder.parents if each.exists())
    if not above.is_dir():
        raise InputError(f"--out {out} is below {above}, which is no folder: name another")
    try:
        tempfile.TemporaryDirectory(dir=above).cleanup()
    except OSError as error:
        raise InputError(f"--out {out}: no folder can be made in {above} ({error.strerror}): name another") from None


def default_cache() -> Path:
    """The folder that holds corpora and downloads. Raises `InputError` if there is no home folder for it."""
    cache = os.environ.get("BERTFAST_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "bertfast")
    folder = expanded(cache)
    if str(folder).startswith("~"):
        raise InputError("there is no home folder to keep corpora in: set HOME, or BERTFAST_CACHE to another folder")
    return folder


def refuse_settings(sources: Sources, given: Container[str]) -> None:
    """Raises `InputError` if a source is a built corpus and `given` holds the name of a setting of CorpusConfig."""
    for source in filter(is_built, sources):
        for field in dataclasses.fields(CorpusConfig):
            if field.name in given:
                raise InputError(
                    f"{source} is a built corpus, whose settings can't be changed: "
                    f"leave out {flag(CorpusConfig, field.name)}, or build another"
                )


def _load_tokenizer(config: CorpusConfig) -> Tokenizer:
    return Tokenizer.load(config.tokenizer, config.lowercase, config.strip_accents)


def _open_built(sources: Sources, config: CorpusConfig) -> Corpus:
    if len(sources) > 1:
        folder = next(filter(is_built, sources))
        raise InputError(
            f"{folder} is a built corpus, which can't be combined: give it alone, or build one from all texts"
        )
    corpus = Corpus.open(sources[0])
    for line in corpus.warnings:
        logger.warning(line)
    if config.tokenizer not in TRAINERS:
        tokenizer = _load_tokenizer(config)
        if tokenizer.backend.to_str() != corpus.tokenizer.backend.to_str():
            raise InputError(
                f"{sources[0]} is a built corpus with another tokenizer than {config.tokenizer}: "
                f"build one with --tokenizer {config.tokenizer}"
            )
    return dataclasses.replace(
        corpus,
        description=(f"{sources[0]} (a built corpus)", *corpus.figures),
        names=(last_name(Path(sources[0])),),
    )


def _open_or_build(sources: Sources, config: CorpusConfig, cache: Path, out: Path | None, progress: bool) -> Corpus:
    """The corpus in `out`, or in the cache if that is None; built first if it isn't there yet."""
    with _naming_the_cache(cache):
        resolved = [find_source(source, config, cache) for source in sources] or [embedded_source()]
        files = [file for source in resolved for file in source.files]
        tokenizer = None if config.tokenizer in TRAINERS else _load_tokenizer(config)
        corpora = cache / "corpora"
        corpora.mkdir(parents=True, exist_ok=True)
        signatures = {file.path: signature(file.path) for file in files}
        name = fingerprint(files, digests_of(signatures, cache / "digests.json"), tokenizer, config)
        folder = out or corpora / name
        if not _is_used(folder):
            names = ", ".join(source.description for source in resolved)
            work = corpora / f"{name}.building"
            backend = tokenizer.backend.to_str() if tokenizer else None
            plan = Plan(work, units_of(files), signatures, backend, config, names)
            place = hashlib.blake2b(bytes(folder.resolve()), digest_size=16).hexdigest()
            building = locked(work.with_suffix(".lock"), "building this corpus")
            writing = locked(corpora / f"{place}.lock", f"building a corpus in {folder}")  # perhaps another one
            with building, writing, _kept_for_resuming(work):
                if not _is_used(folder):
                    build(plan, folder, name, progress)
    corpus = Corpus.open(folder) if out else Corpus.open(folder, "delete that folder, and the corpus is built again")
    for line in corpus.warnings:
        logger.warning(line)
    if corpus.fingerprint != name:
        raise InputError(f"{folder} holds another corpus: name another folder")
    return dataclasses.replace(
        corpus,
        description=(*(source.description for source in resolved), *corpus.figures),
        names=tuple(source.name for source in resolved),
        language=config.base_language,  # the corpus may have been built with another, if the text needs no rules
    )


@contextmanager
def _kept_for_resuming(work: Path) -> Iterator[None]:
    """Removes the folder after a build or for bad input; keeps it if a build is interrupted or the disk is full."""
    try:
        yield
    except InputError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)


def _is_used(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextmanager
def _naming_the_cache(cache: Path) -> Iterator[None]:
    """Turns an OSError, such as a full disk or a read-only folder, into an InputError that names the cache."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or cache}: {error.strerror} (corpora are kept in {cache}; BERTFAST_CACHE moves them)"
        ) from None
