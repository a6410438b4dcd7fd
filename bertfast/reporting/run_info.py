"""run.json: a run's settings and corpora, for people and for the commands that read the run directory."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from bertfast._version import __version__
from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus, is_built
from bertfast.errors import InputError
from bertfast.files import whole_file


@dataclasses.dataclass(frozen=True)
class Text:
    """A corpus as a run used it."""

    folder: str
    fingerprint: str
    part: tuple[int, int] | None
    """The range of documents, end excluded, if only some were used."""
    description: tuple[str, ...]

    @classmethod
    def of(cls, corpus: Corpus) -> Text:
        return cls(str(corpus.folder.absolute()), corpus.fingerprint, corpus.part, corpus.description)


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """The settings and corpora of a run."""

    model: BertConfig
    train: TrainConfig
    corpus: Text
    held_out: Text | None
    settled: bool = True
    """Whether `train.steps` is final: with --minutes it is estimated at first."""
    average: dict[str, Any] | None = None
    """The fields of the `Average` that was written in place of the trained weights."""

    def write(self, folder: Path) -> None:
        """Writes `folder`/run.json, with the versions of the software."""
        versions = {
            "bertfast": __version__,
            "torch": importlib.metadata.version("torch"),
            "python": platform.python_version(),
        }
        with whole_file(folder / "run.json") as partial:
            content = {"versions": versions, **dataclasses.asdict(self)}
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            # A file name need not be UTF-8: Python decodes it to surrogates, written here as JSON's \u.... escapes.
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")

    @classmethod
    def read(cls, folder: Path) -> RunInfo:
        """Reads `folder`/run.json. Raises InputError if it is missing, or this version can't read it."""
        path = folder / "run.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            corpus, held_out = (text and _text(text) for text in (content["corpus"], content["held_out"]))
            if corpus is None:
                raise ValueError("it names no corpus")
            train, settled = _train_config(content["train"]), bool(content.get("settled", True))
            return cls(BertConfig(**content["model"]), train, corpus, held_out, settled, content.get("average"))
        except FileNotFoundError:
            raise InputError(f"{folder} holds no run.json: give a folder that bertfast.pretrain wrote") from None
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, InputError) as error:
            raise InputError(
                f"{path} can't be read ({type(error).__name__}: {error}): it is damaged, or another version of bertfast"
                " wrote it; train again, into a new folder"
            ) from None


def _train_config(content: dict[str, Any]) -> TrainConfig:
    if "decay" not in content:  # version 0.3.0 counted the steps of the warm-up, and decayed in all others
        warmup = min(1.0, content["warmup"] / content["steps"])
        content = {**content, "warmup": warmup, "decay": 1 - warmup}
    return TrainConfig(**content)


def _text(content: dict[str, Any]) -> Text:
    part = content["part"]
    return Text(
        str(content["folder"]),
        str(content["fingerprint"]),
        (int(part[0]), int(part[1])) if part else None,
        tuple(map(str, content["description"])),
    )


def corpus_of_run(folder: Path) -> tuple[Corpus, TrainConfig]:
    """The corpus that the run in `folder` was trained on, and its settings. Raises `InputError` if it is gone.

    Until a run with --minutes has settled its number of steps, any step may come, all with the short examples.
    """
    run = RunInfo.read(folder)
    if not is_built(run.corpus.folder):
        raise InputError(f"the corpus of the run in {folder} was in {run.corpus.folder}, and is gone: build it again")
    corpus = Corpus.open(run.corpus.folder)
    if corpus.fingerprint != run.corpus.fingerprint:
        raise InputError(f"{run.corpus.folder} holds another corpus than the run in {folder} had: build that again")
    corpus = dataclasses.replace(corpus, description=run.corpus.description)
    if run.corpus.part:
        first, last = run.corpus.part
        trained = f"trained on the documents {first + 1:,} to {last:,} of these; the others were held out"
        corpus = corpus.documents(first, last)
        corpus = dataclasses.replace(corpus, description=(*corpus.description, trained))
    return corpus, run.train if run.settled else dataclasses.replace(run.train, steps=sys.maxsize)
