"""What the trained models are good for: SST-2 by logistic regression on their frozen vectors, beside TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learning.contender import Contender
from learning.curve import Curve, one_a_kind
from learning.ours import OURS

from bertfast.config import LabelColumns
from bertfast.data.readers.labelled import Labelled, read_labelled
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.classification import probe_labels
from bertfast.inference.probe.verdict import ROWS, Classification

TRAIN, TEST = "sst2-train.tsv", "sst2-dev.tsv"


def probe(
    contenders: Sequence[Contender], curves: Sequence[Curve], tokenizer: Tokenizer, folder: Path
) -> dict[str, Classification]:
    """By label: each run of ours, and of others the one that ends lowest. Models that are no BERT are left out."""
    train, test = (read(folder / name) for name in (TRAIN, TEST))
    chosen = {curve.label for curve in one_a_kind(curves)}
    found = {}
    for contender in contenders:
        model = contender.as_bert() if contender.kind == OURS or contender.label in chosen else None
        if model is not None:
            found[contender.label] = probe_labels(Encoder(model, tokenizer), train, test)
    return found


def read(path: Path) -> Labelled:
    return read_labelled(path, LabelColumns(), ",")


def figures(found: Classification) -> dict[str, Any]:
    """The table for JSON: row -> number of labels -> percent, and two standard errors of it."""
    return {row: {column.labels: list(column.accuracy(row)) for column in found.columns} for row in ROWS}
