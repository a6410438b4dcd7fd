"""Build a corpus from text, describe it, or show any training batch."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bertfast.command_line import Parser, add_settings, first_given, run_command, settings
from bertfast.config import CorpusConfig, SamplerConfig, TrainConfig
from bertfast.data.corpus import Corpus, is_built
from bertfast.data.load import build_corpus
from bertfast.data.sources.find import SOURCES
from bertfast.errors import InputError
from bertfast.files import expanded
from bertfast.reporting.run_info import corpus_of_run
from bertfast.sampling.inspect import batch_lines
from bertfast.sampling.statistics import statistics

_EXAMPLE = [field.name for field in dataclasses.fields(SamplerConfig)]
_SHOWN = [*_EXAMPLE, "batch_size"]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m bertfast.corpus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    build = commands.add_parser("build", help="build a corpus from text")
    build.add_argument("sources", nargs="+", metavar="PATH|NAME", help=SOURCES)
    build.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        type=expanded,
        help="folder to write; pass it to bertfast.pretrain as --corpus DIR",
    )
    add_settings(build, CorpusConfig, "corpus and tokenizer")
    info = commands.add_parser("info", help="describe a corpus, or the one that a run was trained on")
    info.add_argument("folder", metavar="DIR", type=expanded, help="a run directory, or a folder written by build")
    add_settings(info, SamplerConfig, "examples (only if DIR is a corpus; a run has its own settings)", _EXAMPLE)
    show = commands.add_parser("show", help="print a training batch with its masks marked")
    show.add_argument("folder", metavar="DIR", type=expanded, help="a run directory, or a folder written by build")
    show.add_argument(
        "--step", default=0, metavar="N", type=int, help="step of the batch, from 0 (default: %(default)s)"
    )
    show.add_argument(
        "--examples",
        default=10,
        metavar="N",
        type=int,
        help="maximum number of examples to print (default: %(default)s)",
    )
    add_settings(show, TrainConfig, "examples (only if DIR is a corpus; a run has its own settings)", _SHOWN)
    return parser


def _main(options: argparse.Namespace) -> None:
    {"build": _build, "info": _info, "show": _show}[options.command](options)


def _build(options: argparse.Namespace) -> None:
    corpus = build_corpus(*options.sources, out=options.out, config=settings(CorpusConfig, options))
    for line in corpus.description:
        print(line)


def _info(options: argparse.Namespace) -> None:
    for line in statistics(*_opened(options, _EXAMPLE)):
        print(line)


def _show(options: argparse.Namespace) -> None:
    if options.examples < 1:
        raise InputError(f"--examples must be at least 1, not {options.examples}")
    corpus, config = _opened(options, _SHOWN, steps=max(1, options.step + 1))
    for line in batch_lines(corpus, config, options.step, options.examples):
        print(line)


def _opened(options: argparse.Namespace, names: Iterable[str], **defaults: Any) -> tuple[Corpus, TrainConfig]:
    """A run's corpus and settings; or a corpus, with the command line's settings, then `defaults`.

    `names` are the settings that the command takes; a run refuses them.
    """
    folder: Path = options.folder
    if (folder / "run.json").is_file():
        if given := first_given(options, TrainConfig, names):
            raise InputError(f"the run in {folder} has settings of its own: leave out {given}")
        return corpus_of_run(folder)
    if not is_built(folder):
        raise InputError(f"{folder} holds no corpus: give a run's folder, or one that bertfast.corpus build wrote")
    return Corpus.open(folder), settings(TrainConfig, options, **defaults)


if __name__ == "__main__":
    sys.exit(main())
