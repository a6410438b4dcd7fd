"""Texts in the form of the benchmark's own, so small that a run of them takes a moment."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from learning import probes
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


def made_up_probes(folder: Path) -> Path:
    """Labelled texts, written to the folder: a text's label is that of half of its words."""
    generator = random.Random(0)
    for name, count in ((probes.TRAIN, 60), (probes.TEST, 20)):
        lines = ["sentence\tlabel"]
        for label in range(2):
            of_label = WORDS[label::2]
            lines += [f"{' '.join(generator.choices(of_label + WORDS, k=8))}\t{label}" for _ in range(count)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
