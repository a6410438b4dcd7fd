"""What every stage of bench/gpu.sh begins and ends with: its arguments, its result, and being skipped."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

SKIPPED = 77  # the exit status that says so; the last line says why


def arguments(*names: str, choices: Sequence[str] | None = None) -> argparse.Namespace:
    """The stage's own positional arguments, `--tiny`, and `--device`, which must be there."""
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(name, choices=choices)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that the stage works")
    parser.add_argument("--seconds", type=float, default=60.0, help="no round is begun after so many")
    return parser.parse_args()


def require(device: str) -> None:
    """Skips the stage where the device is missing."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        skip(f"torch {torch.__version__} sees no CUDA device")


def skip(reason: str) -> NoReturn:
    print(reason, flush=True)
    sys.exit(SKIPPED)


def save(result: dict[str, Any]) -> None:
    """Writes what was measured so far to $RESULT: a stage that is stopped has kept it."""
    path = Path(os.environ["RESULT"])
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
