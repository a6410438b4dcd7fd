"""Shared by all stages of bench/gpu.sh: parsing arguments, saving the result, and skipping the stage."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

SKIPPED = 77  # the exit status of a skipped stage; the last line of output says why


def arguments(*names: str, choices: Sequence[str] | None = None) -> argparse.Namespace:
    """The stage's own positional arguments, and the options that all stages have."""
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(name, choices=choices)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to test the stage itself")
    parser.add_argument("--seconds", type=float, default=60.0, help="start no round after this many seconds")
    return parser.parse_args()


def require(device: str) -> None:
    """Skips the stage if the device is missing."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        skip(f"torch {torch.__version__} sees no CUDA device")


def skip(reason: str) -> NoReturn:
    print(reason, flush=True)
    sys.exit(SKIPPED)


def save(result: dict[str, Any]) -> None:
    """Writes the results so far to $RESULT, so that a stage that is stopped keeps them."""
    path = Path(os.environ["RESULT"])
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
