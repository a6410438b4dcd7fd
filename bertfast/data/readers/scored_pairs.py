"""Reads pairs of texts with a similarity score, in the format of the SemEval tasks on textual similarity."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bertfast.data.normal_form import nfc
from bertfast.data.readers.lines import record_lines
from bertfast.errors import InputError
from bertfast.files import named_file

logger = logging.getLogger(__name__)


class ScoredPairs(NamedTuple):
    """Pairs of texts, and how similar people found each pair: a higher score is more similar."""

    first: Sequence[str]
    second: Sequence[str]
    scores: Sequence[float]


def read_scored_pairs(name: str | Path) -> ScoredPairs:
    """The pairs of a file with a score, a text and a text on each line, separated by tabs; in Unicode NFC.

    Quotes have no special meaning. A first line that does not begin with a number is a header. Raises InputError, with
    the line's number, for a line in another format.
    """
    path = named_file(name)
    first, second, scores = [], [], []
    for number, line in enumerate(record_lines(path), 1):
        fields = line.rstrip("\r\n").split("\t")
        if not line.strip() or (number == 1 and len(fields) == 3 and _number(fields[0]) is None):
            continue
        score = _number(fields[0])
        if len(fields) != 3 or score is None:
            raise InputError(f"{path}:{number}: expected a score, a text and a text, separated by tabs: fix that line")
        first.append(nfc(fields[1]))
        second.append(nfc(fields[2]))
        scores.append(score)
    logger.info("%s: %s pairs", path, len(scores))
    return ScoredPairs(first, second, scores)


def _number(field: str) -> float | None:
    try:
        number = float(field)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
