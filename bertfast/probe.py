"""`python -m bertfast.probe`: measures whether a pretrained model helps on labelled texts or scored pairs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from bertfast.command_line import Parser, add_model, add_settings, first_given, run_command, settings
from bertfast.config import CorpusConfig, EncodeConfig, LabelColumns, ProbeConfig
from bertfast.data.readers.labelled import read_labelled
from bertfast.data.readers.scored_pairs import read_scored_pairs
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.classification import probe_labels
from bertfast.inference.probe.features import require_scikit_learn
from bertfast.inference.probe.similarity import probe_similarity

# The settings that only labelled texts need.
_OF_LABELS: dict[type, list[str]] = {
    ProbeConfig: ["labels_each"],
    LabelColumns: [field.name for field in dataclasses.fields(LabelColumns)],
    CorpusConfig: ["delimiter"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.probe",
        description="Say whether a pretrained model helps: classify texts by its frozen vectors, beside TF-IDF and "
        "random weights of the same model.",
    )
    add_model(parser)
    parser.add_argument("--labels", metavar="FILE", help="labelled texts: .tsv, .csv, .jsonl, .json or .parquet")
    parser.add_argument("--test", metavar="FILE", help="labelled texts to test on (default: a fifth of --labels)")
    parser.add_argument(
        "--similarity", metavar="FILE.tsv", help="scored pairs: a score, a text and a text on each line, between tabs"
    )
    add_settings(parser, ProbeConfig, "labels", _OF_LABELS[ProbeConfig])
    add_settings(parser, LabelColumns, "reading the labels", _OF_LABELS[LabelColumns])
    add_settings(parser, CorpusConfig, "reading .csv files", _OF_LABELS[CorpusConfig])
    add_settings(parser, EncodeConfig, "vectors")
    return parser


def _main(options: argparse.Namespace) -> None:
    if options.labels is None:
        if options.similarity is None:
            raise InputError("give --labels FILE, or --similarity FILE, or both")
        of_labels = [first_given(options, group, names) for group, names in _OF_LABELS.items()]
        for given in ("--test" if options.test is not None else None, *of_labels):
            if given:
                raise InputError(f"{given} is for labels: give --labels FILE, or leave it out")
    require_scikit_learn()
    encoder = Encoder.load(options.model)
    config = settings(ProbeConfig, options, **encoder.defaults(vars(options)))
    columns, delimiter = settings(LabelColumns, options), settings(CorpusConfig, options).delimiter
    train = read_labelled(options.labels, columns, delimiter) if options.labels is not None else None
    test = read_labelled(options.test, columns, delimiter) if options.test is not None else None
    pairs = read_scored_pairs(options.similarity) if options.similarity is not None else None
    if train:
        print(*probe_labels(encoder, train, test, config).lines(), sep="\n")
    if pairs:
        print(*probe_similarity(encoder, pairs, config).lines(), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
