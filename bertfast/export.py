"""`python -m bertfast.export`: adds the files that another library needs to a model folder."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from bertfast.command_line import Parser, add_model, add_settings, first_given, run_command, settings
from bertfast.config import EncodeConfig
from bertfast.errors import InputError
from bertfast.hub.export import check_form, export
from bertfast.hub.forms import FORMS

logger = logging.getLogger("bertfast")  # by -m this module is "__main__"

# The settings that modules of sentence-transformers can have.
_OF_VECTORS = ("pooling", "normalize")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.export",
        description="Add the files that another library needs to a model folder. Nothing else in it changes, except "
        "that a model card by bertfast then says how to use them.",
    )
    add_model(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=list(FORMS),
        help="; ".join(f"{name}: {form.purpose}" for name, form in FORMS.items()),
    )
    add_settings(parser, EncodeConfig, "sentence-transformers", _OF_VECTORS)
    return parser


def _main(options: argparse.Namespace) -> None:
    if options.to == "onnx" and (given := first_given(options, EncodeConfig, _OF_VECTORS)):
        raise InputError(f"an ONNX graph returns every token's hidden states: leave out {given}")
    check_form(options.to)
    for name in FORMS[options.to].files:
        if (options.model / name).exists():
            raise InputError(f"{options.model / name} already exists: remove it, or export a copy of the folder")
    export(options.model, options.to, settings(EncodeConfig, options))
    logger.info("added to %s: %s", options.model, ", ".join(FORMS[options.to].files))


if __name__ == "__main__":
    sys.exit(main())
