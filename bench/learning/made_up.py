"""Text in the form of the benchmark's own, so small that a run of it takes a moment."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from learning.texts import HELD_OUT, TRAIN, Texts, load_texts

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in "aeiou"]


def made_up_texts(folder: Path) -> Texts:
    """Written to, and cached in, the folder."""
    generator = random.Random(0)
    for name, documents in ((TRAIN, 100), (HELD_OUT, 20)):
        with gzip.open(folder / name, "wt", encoding="utf-8") as file:
            for _ in range(documents):
                for _ in range(8):
                    print(*generator.choices(WORDS, k=generator.randrange(4, 16)), ".", file=file)
                print(file=file)
    return load_texts(folder, folder / "cache")
