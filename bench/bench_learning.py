"""How much a model has learned by the clock: ours, the notebook's code and transformers, in alternating slices.

    python bench/bench_learning.py --preset tiny --minutes 10 [--probe] [--out FOLDER]

takes that long for each of eight contenders; `--only`, `--seeds` and `--rates` choose among them. Under pytest all of
it runs for seconds, on made-up text.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as pytest's `pythonpath` has it
    sys.path.append(str(Path(__file__).parents[1] / "tests"))

import argparse
import dataclasses
import datetime
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from learning.contender import Contender
from learning.curve import Curve
from learning.held_out_loss import CPU, standard_examples
from learning.made_up import made_up_probes, made_up_texts
from learning.ours import OLD_DEFAULTS, OURS, old_defaults, ours
from learning.peers import NOTEBOOK, TRANSFORMERS, Notebook, Transformers
from learning.picture import draw
from learning.probes import figures, probe
from learning.race import race, slice_ends
from learning.table import loss_table, time_table
from learning.texts import HELD_OUT, TRAIN, Texts, load_texts
from machine import ROOT, origin

from bertfast.config import TrainConfig
from bertfast.distributed.devices import choose_precision
from bertfast.files import whole_file
from bertfast.log import show_messages
from bertfast.presets import PRESETS

PACKAGES = ("bertfast", "torch", "numpy", "transformers", "d2l", "scikit-learn")
KINDS = (OURS, OLD_DEFAULTS, NOTEBOOK, TRANSFORMERS)


class Choice(NamedTuple):
    """Who takes part."""

    kinds: Sequence[str] = KINDS
    seeds: Sequence[int] = (0, 1, 2)
    """Of our runs."""
    rates: Sequence[float] = (1e-4, 5e-4, 1e-3)
    """Learning rates of transformers."""


def contenders(preset: str, minutes: float, texts: Texts, folder: Path, choice: Choice) -> list[Contender]:
    """All that are chosen, without the peers that are not installed."""
    dtype = choose_precision(TrainConfig(**PRESETS[preset].train), CPU)
    makers: dict[str, list[Callable[[], Contender]]] = {
        OURS: [lambda seed=seed: ours(preset, minutes, seed, texts.train, folder) for seed in choice.seeds],
        OLD_DEFAULTS: [lambda: old_defaults(preset, minutes, texts.train, folder)],
        NOTEBOOK: [lambda: Notebook(preset, texts.train)],
        TRANSFORMERS: [
            lambda rate=rate: Transformers(preset, minutes, rate, dtype, texts.train) for rate in choice.rates
        ],
    }
    found = []
    for kind in choice.kinds:
        for make in makers[kind]:
            try:
                found.append(make())
            except ImportError as error:
                print(f"left out: {error}", file=sys.stderr, flush=True)
    return found


@dataclasses.dataclass
class Report:
    """Writes results.json, table.txt and loss.svg into a folder, anew after each round, so that none is lost."""

    folder: Path
    preset: str
    minutes: float
    facts: dict[str, Any]

    def write(self, curves: Sequence[Curve], probes: dict[str, Any] | None = None) -> list[str]:
        """Returns the tables."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ends = slice_ends(self.minutes)[: len(curves[0].points)]
        lines = [self._title, *loss_table(curves, ends), "", *time_table(curves)]
        for label, found in (probes or {}).items():
            lines += ["", f"SST-2, {label}", *found.lines()]
        result = {
            **self.facts,
            "curves": [dataclasses.asdict(curve) for curve in curves],
            "probes": {label: figures(found) for label, found in (probes or {}).items()},
        }
        for name, text in (("results.json", json.dumps(result, indent=2)), ("table.txt", "\n".join(lines))):
            with whole_file(self.folder / name) as partial:
                partial.write_text(text + "\n", encoding="utf-8")
        draw(curves, self._title, self.folder / "loss.svg")
        return lines

    @property
    def _title(self) -> str:
        return f"{self.preset}, {self.minutes:g} minutes, {self.facts['cpu']}, {self.facts['threads']} threads"


def compare(
    preset: str,
    minutes: float,
    texts: Texts,
    out: Path,
    choice: Choice,
    probes: Path | None = None,
) -> list[str]:
    """Trains, evaluates and, with the folder `probes`, probes all contenders. Returns the tables."""
    examples = standard_examples(texts.held_out)
    with tempfile.TemporaryDirectory(prefix="bertfast-learning-") as runs:
        those = contenders(preset, minutes, texts, Path(runs), choice)
        facts = {
            "preset": preset,
            "minutes": minutes,
            **origin(PACKAGES),
            "threads": torch.get_num_threads(),
            "train": texts.train.description[1:],  # the first line is the file's path
            "held_out": texts.held_out.description[1:],
            "held_out_examples": examples.examples,
            "settings": {each.label: each.settings for each in those},
        }
        report = Report(out, preset, minutes, facts)
        curves = race(those, minutes, examples, report.write)
        found = probe(those, curves, texts.train.tokenizer, probes) if probes else None
        return report.write(curves, found)


@pytest.mark.long
def test_learning(benchmark, tables, tmp_path):
    """Two seconds for each contender, on made-up text: not figures, but all of the way to them."""
    benchmark.pedantic(lambda: None)
    minutes = 2 / 60
    out = tmp_path / "out"
    probes = made_up_probes(tmp_path) if importlib.util.find_spec("sklearn") else None
    choice = Choice(seeds=(0, 1), rates=(1e-4, 1e-3))
    lines = compare("tiny", minutes, made_up_texts(tmp_path), out, choice, probes)
    tables.append(lines)
    assert sorted(path.name for path in out.iterdir()) == ["loss.svg", "results.json", "table.txt"]
    result = json.loads((out / "results.json").read_text())
    labels = [curve["label"] for curve in result["curves"]]
    assert list(result["settings"]) == labels
    assert {curve["kind"] for curve in result["curves"]} >= {OURS, OLD_DEFAULTS}
    assert labels[:3] == ["ours, seed 0", "ours, seed 1", OLD_DEFAULTS]
    probed = [OLD_DEFAULTS, *labels[:2], *(label for label in labels if label.startswith(TRANSFORMERS))]
    assert not probes or set(labels[:3]) <= set(result["probes"]) <= set(probed)
    for curve in result["curves"]:
        seconds = [second for second, _ in curve["points"]]
        assert len(seconds) == len(slice_ends(minutes))
        assert seconds == sorted(seconds)
        assert all(0 < loss < 20 for _, loss in curve["points"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("tiny", "mini"), default="tiny")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each contender (default: 10)")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=f"of {KINDS}")
    parser.add_argument("--seeds", type=int, nargs="+", default=Choice().seeds, help="of our runs")
    parser.add_argument("--rates", type=float, nargs="+", default=Choice().rates, help="of transformers")
    parser.add_argument("--probe", action="store_true", help="also probe the models on SST-2, in $BERTFAST_PROBES")
    parser.add_argument("--out", type=Path, help="folder for results.json, table.txt and loss.svg")
    return parser.parse_args()


def _folder(variable: str, what: str) -> Path:
    """The folder that an environment variable names; ends the process without one."""
    if variable not in os.environ:
        sys.exit(f"needs {what}: set {variable} to a folder with them")
    return Path(os.environ[variable])


def main() -> None:
    given = _arguments()
    show_messages(quiet=True)
    general = _folder("BERTFAST_GENERAL", f"{TRAIN} and {HELD_OUT}")
    probes = _folder("BERTFAST_PROBES", "sst2-train.tsv and sst2-dev.tsv") if given.probe else None
    name = f"learning-{given.preset}-{given.minutes:g}-minutes-{datetime.date.today()}"
    out = given.out or ROOT / "bench" / "results" / name
    choice = Choice(given.only, given.seeds, given.rates)
    print(*compare(given.preset, given.minutes, load_texts(general), out, choice, probes), sep="\n")


if __name__ == "__main__":
    main()
