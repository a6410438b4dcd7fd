"""`python -m bertfast.encode`: prints the encoding of a text, or writes a vector for each text of a file."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bertfast.command_line import Parser, add_model, add_settings, run_command, settings
from bertfast.config import CorpusConfig, EncodeConfig
from bertfast.data.load import default_cache
from bertfast.data.readers.html import html_lines
from bertfast.data.readers.lines import whole_lines
from bertfast.data.readers.records import column_texts
from bertfast.data.sources.find import SOURCES, find_source
from bertfast.data.text_file import TextFile
from bertfast.distributed.devices import choose_precision
from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.inference.encoder import Encoder
from bertfast.log import progress_bar

logger = logging.getLogger("bertfast")  # by -m this module is "__main__"

# Texts in memory at a time.
_BLOCK = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.encode",
        description="Print the encoding of a text or a pair of texts, or write a vector for each text of a file.",
    )
    add_model(parser)
    parser.add_argument("text", nargs="?", help="the text to encode")
    parser.add_argument("pair", nargs="?", help="a second text, encoded together with the first as a pair")
    bulk = parser.add_argument_group("vectors in a file")
    bulk.add_argument(
        "--input",
        metavar="PATH|NAME",
        help=f"the texts: the lines of a text file, the paragraphs of HTML, or records; {SOURCES}",
    )
    bulk.add_argument("--out", metavar="FILE.npy", type=Path, help="array to write: one float32 row per text")
    add_settings(parser, CorpusConfig, "reading the input", ("text_column", "delimiter"))
    add_settings(
        parser,
        EncodeConfig,
        "vectors (a folder with sentence-transformers' modules.json has its own --pooling, --normalize and --max-len)",
    )
    return parser


def _main(options: argparse.Namespace) -> None:
    if (options.text is None) == (options.input is None):
        raise InputError("give a text, or --input FILE with --out FILE.npy")
    if options.out is None:
        if options.input is not None:
            raise InputError("--input needs --out FILE.npy, the array to write")
        _print_encoding(Encoder.load(options.model), options.text, options.pair)
        return
    if options.pair is not None:
        raise InputError("--out takes a vector for each text, and a pair has none: give one text, or --input FILE")
    if options.out.suffix != ".npy":
        raise InputError(f"--out {options.out} must end in .npy, for it will hold a NumPy array")
    if not options.out.absolute().parent.is_dir():
        raise InputError(f"--out {options.out}: the folder {options.out.parent} does not exist: create it first")
    texts: Callable[[], Iterator[str]]
    if options.input is None:
        texts, count = partial(iter, [options.text]), 1
    else:
        files = find_source(options.input, settings(CorpusConfig, options), default_cache()).files
        texts = partial(_texts, files)
        count = sum(1 for _ in texts())  # this also finds unreadable input before anything is encoded
    encoder = Encoder.load(options.model)
    config = settings(EncodeConfig, options, **encoder.defaults(vars(options)))
    _write_vectors(encoder, texts(), count, options.out, config)


def _texts(files: Iterable[TextFile]) -> Iterator[str]:
    """The lines of text files and the texts of records, empty ones included, and the paragraphs of HTML files."""
    for file in files:
        if file.kind == "text":
            for line in whole_lines(file.path):
                yield line.rstrip("\r\n")
        elif file.kind == "html":
            yield from filter(None, html_lines(file.path))
        else:
            yield from column_texts(file.records, file.column)


def _print_encoding(encoder: Encoder, text: str, pair: str | None) -> None:
    encoded = encoder(text, pair)
    tokens = encoder.tokens(text, pair)
    print(f"encoded text {tuple(encoded.shape)}, [CLS] {tuple(encoded[:, 0].shape)}")
    width = max(map(len, tokens))
    for token, state in zip(tokens, encoded[0], strict=True):
        numbers = " ".join(f"{value:8.4f}" for value in state[:6].tolist())
        print(f"{token:{width}} {numbers} ...")


def _write_vectors(encoder: Encoder, texts: Iterator[str], count: int, out: Path, config: EncodeConfig) -> None:
    """Writes an array with a row for each of the `count` texts."""
    config.layer_of(encoder.model.config)  # refuses a wrong layer before anything is written
    precision = "bf16" if choose_precision(config, encoder.device) == torch.bfloat16 else "fp32"
    logger.info("encoding in %s on %s threads", precision, torch.get_num_threads())
    written = truncated = 0
    with (
        whole_file(out) as unfinished,
        unfinished.open("wb") as file,
        progress_bar(total=count, unit=" texts") as bar,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (count, encoder.model.config.hidden_size)}
        )
        while block := list(itertools.islice(texts, _BLOCK)):
            before = bar.n

            def advance(pieces: int, most: int = before + len(block)) -> None:
                bar.update(min(pieces, most - bar.n))  # a windowed text is several pieces

            vectors, cut = encoder.embed_texts(block, config, advance)
            file.write(vectors.numpy().tobytes())
            written += len(block)
            truncated += cut
        if written != count:
            raise InputError("the input changed while it was read: run again")
    if truncated:
        logger.warning("%s of %s texts were %s", truncated, count, encoder.truncation(config))
    logger.info("%s vectors of %s numbers in %s", count, encoder.model.config.hidden_size, out)


if __name__ == "__main__":
    sys.exit(main())
