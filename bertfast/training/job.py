"""What a run is to do, and the files by which it reaches the processes that do it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.errors import InputError
from bertfast.files import save_tensors
from bertfast.model import Bert


class TrainingJob(NamedTuple):
    model: Bert
    """It is trained in place."""
    corpus: Corpus
    config: TrainConfig
    eval_corpus: Corpus | None = None
    """Other text to evaluate on."""

    def write(self, folder: Path) -> None:
        """Writes job.json and model.safetensors. Raises InputError if there is no room for them."""
        try:
            save_tensors(self.model.state_dict(), folder / "model.safetensors", {})
        except InputError as error:
            raise InputError(f"{error}: with TMPDIR, name a folder that has room for the workers' model") from None
        settings = {
            "model": dataclasses.asdict(self.model.config),
            "trained_len": self.model.trained_len,
            "base_model": self.model.base_model,
            "train": dataclasses.asdict(self.config),
            "corpus": _reference(self.corpus),
            "eval_corpus": self.eval_corpus and _reference(self.eval_corpus),
        }
        (folder / "job.json").write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> TrainingJob:
        settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        model = Bert(BertConfig(**settings["model"]))
        model.trained_len, model.base_model = settings["trained_len"], settings["base_model"]
        model.load_state_dict(load_file(folder / "model.safetensors"))
        corpus, eval_corpus = (each and _open(each) for each in (settings["corpus"], settings["eval_corpus"]))
        return cls(model, corpus, TrainConfig(**settings["train"]), eval_corpus)


def _reference(corpus: Corpus) -> dict[str, Any]:
    """What a worker needs to open the corpus, as JSON: its folder, and the attributes that the folder does not hold."""
    names = ("part", "description", "names", "language")
    return {"folder": str(corpus.folder), **{name: getattr(corpus, name) for name in names}}


def _open(reference: dict[str, Any]) -> Corpus:
    corpus = dataclasses.replace(
        Corpus.open(reference["folder"]),
        description=tuple(reference["description"]),
        names=tuple(reference["names"]),
        language=reference["language"],
    )
    return corpus.documents(*reference["part"]) if reference["part"] else corpus
