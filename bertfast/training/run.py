"""A finished run, and the folder that it saves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from bertfast.config import TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.devices import choose_precision
from bertfast.files import expanded
from bertfast.hub.card_text import CardFacts
from bertfast.hub.model_card import save_card
from bertfast.hub.transformers import save_model
from bertfast.model import Bert
from bertfast.reporting.average import Average
from bertfast.reporting.context_free import unigram_entropy
from bertfast.reporting.metrics import History
from bertfast.reporting.plot import draw_losses


@dataclasses.dataclass
class Run:
    """A finished run: the trained model, its corpus and configuration, and its metrics."""

    model: Bert
    corpus: Corpus
    config: TrainConfig
    history: History
    devices: list[torch.device]
    pairs_per_second: float
    held_out: Corpus | None = None
    """The text it was evaluated on."""
    base_model: str | None = None
    """The name, on the Hugging Face Hub, of the model that it started from; empty if that is unknown. None: it started
    from random weights."""
    average: Average | None = None
    """The average of weights that `model` has instead of the trained ones, if any."""

    def closing_lines(self) -> str:
        """The notebook's two lines: the means of the losses; examples per second, reading included, and devices."""
        mlm_loss, pair_loss = self.history.mean_losses()
        objective = self.config.objective
        if objective == "none":
            losses, examples = f"MLM loss {mlm_loss:.3f}", "examples"
        else:
            losses, examples = f"MLM loss {mlm_loss:.3f}, {objective.upper()} loss {pair_loss:.3f}", "sentence pairs"
        return f"{losses}\n{self.pairs_per_second:.1f} {examples}/sec on {self.devices}"

    def save(self, folder: str | Path) -> None:
        """Writes the Hugging Face folder: config.json, model.safetensors, tokenizer files, loss.svg, loss.png, and the
        model card README.md. A card that the user has edited stays as it is."""
        folder = expanded(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, folder)
        self.corpus.tokenizer.save(folder, self.model.max_len)
        draw_losses(self.history, folder, unigram_entropy(self.corpus.token_counts), self.config.objective)
        dtype = choose_precision(self.config, self.devices[0])
        texts = self.corpus, self.held_out
        facts = CardFacts(self.model, self.config, *texts, self.history, dtype, self.base_model, self.average)
        save_card(folder, facts)


def base_of(model: Bert) -> str | None:
    """`Run.base_model` of a run that is about to train `model`."""
    return model.base_model if model.trained_len else None
