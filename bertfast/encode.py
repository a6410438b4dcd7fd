"""`python -m bertfast.encode`: prints the encoding of a text, or writes a vector for each text of a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from bertfast.command_line import Parser, add_model, add_settings, first_given, run_command, settings
from bertfast.config import CorpusConfig, EncodeConfig
from bertfast.data.load import default_cache
from bertfast.data.normal_form import nfc
from bertfast.data.sources.find import SOURCES, find_source
from bertfast.errors import InputError
from bertfast.files import expanded
from bertfast.inference.encoder import Encoder
from bertfast.inference.vectors_file import texts_of, write_vectors

_READING = ("text_column", "delimiter")


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
    bulk.add_argument("--out", metavar="FILE.npy", type=expanded, help="array to write: one float32 row per text")
    add_settings(parser, CorpusConfig, "reading the input", _READING)
    add_settings(
        parser,
        EncodeConfig,
        "vectors (a folder with sentence-transformers' modules.json has its own --pooling, --normalize and --max-len)",
    )
    return parser


def _main(options: argparse.Namespace) -> None:
    if (options.text is None) == (options.input is None):
        raise InputError("give a text, or --input FILE with --out FILE.npy")
    if options.input is None and (given := first_given(options, CorpusConfig, _READING)):
        raise InputError(f"{given} is for records: give --input FILE, or leave it out")
    if options.out is None:
        if options.input is not None:
            raise InputError("--input needs --out FILE.npy, the array to write")
        if given := first_given(options, EncodeConfig, [field.name for field in fields(EncodeConfig)]):
            raise InputError(f"{given} is for vectors: give --out FILE.npy, or leave it out")
        pair = None if options.pair is None else nfc(options.pair)
        _print_encoding(Encoder.load(options.model), nfc(options.text), pair)
        return
    if options.pair is not None:
        raise InputError("--out takes a vector for each text, and a pair has none: give one text, or --input FILE")
    if options.out.is_dir():
        raise InputError(f"--out {options.out} is a folder: name a file in it")
    if options.out.suffix != ".npy":
        raise InputError(f"--out {options.out} must end in .npy, for it will hold a NumPy array")
    if not options.out.absolute().parent.is_dir():
        raise InputError(f"--out {options.out}: the folder {options.out.parent} does not exist: create it first")
    if options.input is None:
        texts, count = iter([options.text]), 1
    else:
        files = find_source(options.input, settings(CorpusConfig, options), default_cache()).files
        count = sum(1 for _ in texts_of(files))  # this also finds unreadable input before anything is encoded
        texts = texts_of(files)
    encoder = Encoder.load(options.model)
    config = settings(EncodeConfig, options, **encoder.defaults(vars(options)))
    write_vectors(encoder, texts, count, options.out, config)


def _print_encoding(encoder: Encoder, text: str, pair: str | None) -> None:
    encoded = encoder(text, pair)
    tokens = encoder.tokens(text, pair)
    print(f"encoded text {tuple(encoded.shape)}, [CLS] {tuple(encoded[:, 0].shape)}")
    width = max(map(len, tokens))
    for token, state in zip(tokens, encoded[0], strict=True):
        numbers = " ".join(f"{value:8.4f}" for value in state[:6].tolist())
        print(f"{token:{width}} {numbers} ...")


if __name__ == "__main__":
    sys.exit(main())
