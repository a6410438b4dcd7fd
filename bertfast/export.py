"""What other libraries want to find in a model's folder, added to it; and `python -m bertfast.export`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bertfast.command_line import Parser, add_settings, run_command, settings
from bertfast.config import EncodeConfig
from bertfast.errors import InputError
from bertfast.hub import onnx, sentence_transformers
from bertfast.hub.transformers import POOLER, load_pretrained

# Form -> the files that it adds.
FORMS = {"sentence-transformers": sentence_transformers.FILES, "onnx": (onnx.FILE,)}


def check_form(form: str) -> None:
    """Raises InputError where an export in this form needs a package that is missing: to be told before other work."""
    if form == "onnx":
        onnx.require_onnx()


def export(folder: str | Path, form: str, config: EncodeConfig | None = None) -> None:
    """Adds the files of `form`, one of `FORMS`, to a folder that bertfast or transformers saved.

    Those that are there are replaced. Of `config` sentence-transformers takes the pooling. A model without a pooler has
    no `pooler_output` in ONNX. Raises InputError where the folder holds no model.
    """
    pretrained = load_pretrained(folder)
    if form == "onnx":
        onnx.save_onnx(pretrained.folder, pretrained.model, POOLER not in pretrained.fresh)
    else:
        sentence_transformers.save_modules(pretrained.folder, pretrained.model.config, config or EncodeConfig())


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.export",
        description="Adds to a model's folder what another library wants to find there; nothing else of it changes.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", type=Path, help="what bertfast.pretrain or transformers wrote"
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=list(FORMS),
        help="sentence-transformers: the modules of SentenceTransformer(DIR); onnx: a graph, DIR/onnx/model.onnx",
    )
    add_settings(parser, EncodeConfig, "sentence-transformers", ("pooling",))
    return parser


def _main(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    if options.to == "onnx" and "pooling" in options:
        raise InputError("an ONNX graph gives every token's hidden states: leave out --pooling")
    check_form(options.to)
    for name in FORMS[options.to]:
        if (options.model / name).exists():
            raise InputError(f"{options.model / name} is there already: remove it, or export a copy of the folder")
    export(options.model, options.to, settings(EncodeConfig, options))
    print(f"added to {options.model}: {', '.join(FORMS[options.to])}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
