"""`python -m bertfast.encode`: prints the encoding of a text, or writes a vector for each text of a file."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from bertfast.command_line import Parser, add_settings, run_command, settings
from bertfast.config import EncodeConfig
from bertfast.distributed.world import choose_precision
from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.inference.encoder import Encoder

logger = logging.getLogger("bertfast")  # by -m this module is "__main__"

# Texts in memory at a time.
_BLOCK = 8192
_JSON_LINES = (".jsonl", ".ndjson")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.encode",
        description="Print the encoding of a text or a pair of texts, or write a vector for each text of a file.",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR",
        type=Path,
        help="model folder, written by bertfast.pretrain or transformers",
    )
    parser.add_argument("text", nargs="?", help="the text to encode")
    parser.add_argument("pair", nargs="?", help="a second text, encoded together with the first as a pair")
    bulk = parser.add_argument_group("a file of texts")
    bulk.add_argument(
        "--input",
        metavar="FILE",
        help="one text per line, or one JSON object per line (.jsonl, .ndjson); - is standard input",
    )
    bulk.add_argument(
        "--text-column", metavar="KEY", default="text", help="key of the text in a JSON object (default: text)"
    )
    bulk.add_argument("--out", metavar="FILE.npy", type=Path, help="array to write: one float32 row per text")
    add_settings(parser, EncodeConfig, "vectors (for --input)")
    return parser


def _main(options: argparse.Namespace) -> None:
    if (options.text is None) == (options.input is None):
        raise InputError("give a text, or --input FILE with --out FILE.npy")
    if options.input is None:
        _print_encoding(Encoder.load(options.model), options.text, options.pair)
        return
    if options.out is None or options.out.suffix != ".npy":
        raise InputError("--input needs --out FILE.npy, the array to write")
    if not options.out.absolute().parent.is_dir():
        raise InputError(f"--out {options.out}: there is no folder {options.out.parent}; make it first")
    if options.input != "-" and not Path(options.input).is_file():
        raise InputError(f"--input {options.input}: no such file")
    _write_vectors(Encoder.load(options.model), options, settings(EncodeConfig, options))


def _print_encoding(encoder: Encoder, text: str, pair: str | None) -> None:
    encoded = encoder(text, pair)
    tokens = encoder.tokens(text, pair)
    print(f"encoded text {tuple(encoded.shape)}, [CLS] {tuple(encoded[:, 0].shape)}")
    width = max(map(len, tokens))
    for token, state in zip(tokens, encoded[0], strict=True):
        numbers = " ".join(f"{value:8.4f}" for value in state[:6].tolist())
        print(f"{token:{width}} {numbers} ...")


def _write_vectors(encoder: Encoder, options: argparse.Namespace, config: EncodeConfig) -> None:
    config.layer_of(encoder.model.config)  # raises, if it does, before anything is written
    precision = "bf16" if choose_precision(config, encoder.device) == torch.bfloat16 else "fp32"
    logger.info("encoding in %s on %s threads", precision, torch.get_num_threads())
    written = truncated = 0
    with (
        whole_file(options.out) as partial,
        partial.open("wb") as file,
        tqdm(total=_count(options.input), unit=" texts", file=sys.stderr) as bar,
    ):
        _write_header(file, 0, encoder)
        texts = _texts(options.input, options.text_column)
        while block := list(itertools.islice(texts, _BLOCK)):
            before = bar.n

            def advance(pieces: int, most: int = before + len(block)) -> None:
                bar.update(min(pieces, most - bar.n))  # a windowed text is several pieces

            vectors, cut = encoder.embed_texts(block, config, advance)
            file.write(vectors.numpy().tobytes())
            written += len(block)
            truncated += cut
        _write_header(file, written, encoder)
    if truncated:
        logger.warning("%s of %s texts were %s", truncated, written, encoder.truncation)
    logger.info("%s vectors of %s numbers in %s", written, encoder.model.config.hidden_size, options.out)


def _write_header(file: BinaryIO, rows: int, encoder: Encoder) -> None:
    """Writes the array's header at the start of the file. Its length is the same for any number of rows."""
    file.seek(0)
    shape = (rows, encoder.model.config.hidden_size)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _count(source: str) -> int | None:
    """Number of lines in the file; None for standard input."""
    if source == "-":
        return None
    with Path(source).open("rb") as file:
        return sum(1 for _ in file)


def _texts(source: str, column: str) -> Iterator[str]:
    """The texts of a file. Raises InputError, with the line number, for a line that isn't a text."""
    name = "standard input" if source == "-" else source
    with sys.stdin.buffer if source == "-" else Path(source).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{name}:{number}: not UTF-8 ({error.reason}): convert it, for example with iconv"
                ) from None
            if not source.endswith(_JSON_LINES):
                yield text
            elif text.strip():
                yield _text_of(text, column, f"{name}:{number}")


def _text_of(line: str, column: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); a .jsonl file holds one object per line") from None
    if not isinstance(record, dict) or column not in record:
        there = f"; there are {', '.join(map(repr, record))}" if isinstance(record, dict) else ""
        raise InputError(f"{where}: no {column!r}{there}: name the text's key with --text-column")
    text = record[column]
    if not isinstance(text, str):
        raise InputError(f"{where}: {column!r} holds no text: {json.dumps(text)[:40]}")
    return text


if __name__ == "__main__":
    sys.exit(main())
