"""`python -m bertfast.fill_mask`: prints the likeliest tokens for each [MASK] of a text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bertfast.command_line import Parser, add_model, add_settings, run_command, settings
from bertfast.config import FillMaskConfig
from bertfast.hub.state_dict import MASKED_LM_HEAD
from bertfast.hub.transformers import load_pretrained
from bertfast.inference.encoder import Encoder
from bertfast.inference.fill_mask import fill_mask


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.fill_mask",
        description="Print the likeliest tokens for each [MASK] of a text: probability, token, filled text.",
    )
    add_model(parser)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help='text to fill, such as "the crane is [MASK] ."')
    add_settings(parser, FillMaskConfig, "output")
    return parser


def _main(options: argparse.Namespace) -> None:
    config = settings(FillMaskConfig, options)
    pretrained = load_pretrained(options.model, MASKED_LM_HEAD)
    encoder = Encoder(pretrained.model, pretrained.tokenizer)
    for number, candidates in enumerate(mask for text in options.texts for mask in fill_mask(encoder, text, config)):
        if number:
            print()
        width = max(len(candidate.token) for candidate in candidates)
        for probability, token, filled in candidates:
            print(f"{probability:.4f}  {token:{width}}  {filled}")


if __name__ == "__main__":
    sys.exit(main())
