"""Reads labelled texts: two columns of a file of records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertfast.config import LabelColumns
from bertfast.data.normal_form import nfc
from bertfast.data.readers.columns import json_type, missing_column, text_of, value_of
from bertfast.data.readers.kinds import kind_of
from bertfast.data.readers.records import DELIMITER, json_kind, records
from bertfast.data.text_file import TextFile
from bertfast.errors import InputError
from bertfast.files import named_file

logger = logging.getLogger(__name__)

_LABEL_COLUMN = "--label-column"


class Labelled(NamedTuple):
    """Texts and the label of each."""

    texts: Sequence[str]
    labels: Sequence[str]


def read_labelled(name: str | Path, columns: LabelColumns | None, delimiter: str) -> Labelled:
    """The texts, in Unicode NFC, and labels of a file of records, in its order; a label that is a number becomes a
    string.

    `columns`: None where no option can name them; they are then found as by default. `delimiter`: the character
    between the fields of a .csv file. Raises InputError, with the line or row where there is one, for a file of another
    kind, without records, or without these columns, and for a record that has no label.
    """
    file = _record_file(name, delimiter)
    path = file.path
    option = "" if columns is None else DELIMITER
    where, first = next(records(file, None, delimiter_option=option), (path, None))
    if first is None:
        raise InputError(f"{path} holds no texts and labels: give a file with a record for each text")
    text_column, label_column = _columns(path, list(first), columns)
    value_of(first, label_column, where, _LABEL_COLUMN)  # if it is missing, `records` would name --text-column
    texts, labels = [], []
    for where, record in records(file, [text_column, label_column]):
        texts.append(nfc(text_of(record, text_column, where)))
        labels.append(_label(record, label_column, where))
    logger.info("%s: %s texts (%r), %s labels (%r)", path, len(texts), text_column, len(set(labels)), label_column)
    return Labelled(texts, labels)


def _record_file(name: str | Path, delimiter: str) -> TextFile:
    path = named_file(name)
    kind = kind_of(path)
    if kind in (None, "text", "html"):
        raise InputError(f"{path}: labels are read from .tsv, .csv, .jsonl, .json and .parquet, each also .gz or .zst")
    return TextFile(path, "plain", json_kind(path) if kind == "json" else str(kind), delimiter=delimiter)


def _columns(path: Path, names: list[str], columns: LabelColumns | None) -> tuple[str, str]:
    """The names of the text's column and of the label's."""
    text, label = ("auto", "auto") if columns is None else (columns.text_column, columns.label_column)
    if text == "auto" and "text" in names:
        text = "text"
    if label == "auto" and "label" in names:
        label = "label"
    if len(names) == 2:
        if text == "auto":
            text = _other(names, label)
        if label == "auto":
            label = _other(names, text)
    if columns is None and "auto" in (text, label):
        raise InputError(f"{path} has the columns {', '.join(map(repr, names))}: call the ones to read text and label")
    if text == "auto":
        raise missing_column(path, "text", names)
    if label == "auto":
        raise missing_column(path, "label", names, _LABEL_COLUMN)
    if text == label:
        raise InputError(f"{path}: {text!r} cannot be both text and label: name another {_LABEL_COLUMN}")
    return text, label


def _other(names: list[str], name: str) -> str:
    return names[1] if names[0] == name else names[0]


def _label(record: dict[str, Any], column: str, where: object) -> str:
    value = value_of(record, column, where, _LABEL_COLUMN)
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "" or value != value:
        raise InputError(f"{where}: no label under {column!r}: add it, or remove the record")
    if not isinstance(value, (str, int, float)):
        raise InputError(f"{where}: {column!r} holds {json_type(value)}, not a label: name another {_LABEL_COLUMN}")
    return str(value)
