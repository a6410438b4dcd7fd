"""A file of vectors: a row for each text of a file."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from bertfast.config import EncodeConfig
from bertfast.data.readers.html import html_lines
from bertfast.data.readers.lines import record_lines
from bertfast.data.readers.records import column_texts
from bertfast.data.text_file import TextFile
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.world import precision_name
from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.inference.encoder import Encoder
from bertfast.log import progress_bar

logger = logging.getLogger(__name__)

# Texts in memory at a time.
_BLOCK = 8192


def texts_of(files: Iterable[TextFile]) -> Iterator[str]:
    """The lines of text files and the texts of records, empty ones included, and the paragraphs of HTML files."""
    for file in files:
        if file.kind == "text":
            for line in record_lines(file.path):
                yield line.rstrip("\r\n")
        elif file.kind == "html":
            for is_paragraph, lines in itertools.groupby(html_lines(file.path), bool):
                if is_paragraph:
                    yield " ".join(lines)
        else:
            yield from column_texts(file)


def write_vectors(encoder: Encoder, texts: Iterator[str], count: int, out: Path, config: EncodeConfig) -> None:
    """Writes an array with a row for each of the `count` texts."""
    config.layer_of(encoder.model.config)  # refuses a wrong layer before anything is written
    precision = precision_name(choose_precision(config, encoder.device))
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
            vectors, cut = encoder.embed_texts(block, config, bar.update)
            file.write(vectors.numpy().tobytes())
            written += len(block)
            truncated += cut
        if written != count:
            raise InputError("the input changed while it was read: run again")
    if truncated:
        logger.warning("%s of %s texts were %s", truncated, count, encoder.truncation(config))
    logger.info("%s vectors of %s numbers in %s", count, encoder.model.config.hidden_size, out)
