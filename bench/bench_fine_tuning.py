"""How well a pretrained folder learns labels when all of it is fine-tuned by transformers, beside word counts.

    BERTFAST_PROBES=FOLDER python bench/bench_fine_tuning.py --model DIR [--labels 1000,60614]

fine-tunes the model, and the same model with random weights, with transformers' Trainer. Under pytest it runs for
seconds, on made-up texts.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as pytest's `pythonpath` has it
    sys.path.append(str(Path(__file__).parents[1] / "tests"))

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from learning.made_up import made_up_probes, made_up_texts
from learning.probes import TEST, TRAIN, read
from machine import origin

import bertfast
from bertfast.config import ProbeConfig
from bertfast.data.readers.labelled import Labelled
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.classification import probe_labels
from bertfast.inference.probe.draws import Drawn, train_and_test
from bertfast.inference.probe.verdict import WITH_VECTORS, WORDS

PACKAGES = ("bertfast", "torch", "transformers", "scikit-learn")


class Recipe(NamedTuple):
    """As small BERTs are fine-tuned: a higher rate than BERT-base's, and no dropout."""

    lr: float = 3e-4
    batch_size: int = 32
    epochs: float = 6
    warmup: float = 0.1
    dropout: float = 0.0


def accuracy(folder: Path, train: Labelled, test: Labelled, recipe: Recipe, seed: int, pretrained: bool) -> float:
    """The share of the test's labels, in percent, that the model in `folder` gets right once it is fine-tuned."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = sorted(set(train.labels))
    transformers.set_seed(seed)
    sizes = transformers.AutoConfig.from_pretrained(
        folder,
        num_labels=len(names),
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
    )
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, config=sizes) if pretrained else kind.from_config(sizes)

    def examples(given: Labelled) -> list[dict[str, Any]]:
        tokens = tokenizer(list(given.texts), truncation=True)["input_ids"]
        return [
            {"input_ids": ids, "label": names.index(label)} for ids, label in zip(tokens, given.labels, strict=True)
        ]

    with tempfile.TemporaryDirectory(prefix="bertfast-fine-tuning-") as out:
        trainer = transformers.Trainer(
            model,
            transformers.TrainingArguments(
                out,
                learning_rate=recipe.lr,
                per_device_train_batch_size=recipe.batch_size,
                num_train_epochs=recipe.epochs,
                train_sampling_strategy="group_by_length",
                warmup_steps=round(recipe.warmup * recipe.epochs * len(train.texts) / recipe.batch_size),
                seed=seed,
                save_strategy="no",
                report_to=[],
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=examples(train),
            processing_class=tokenizer,
        )
        trainer.train()
        found = trainer.predict(examples(test))
    return 100 * float(np.mean(found.predictions.argmax(-1) == found.label_ids))


def compare(folder: Path, probes: Path, labels: str, seeds: int, recipe: Recipe) -> Iterator[str]:
    """The lines of a table: for each number of labels, the accuracy of word counts, vectors and fine-tuned models."""
    train, test = train_and_test(*(read(probes / name) for name in (TRAIN, TEST)))
    config = ProbeConfig(labels_each=labels)
    frozen = probe_labels(Encoder.load(folder), train, test, config)
    drawn = Drawn.of(train, test, config)
    yield f"{'labels':>8} {'':40} accuracy in %"
    for column in frozen.columns:
        for row in (WORDS, WITH_VECTORS):
            yield f"{column.labels:8,} {row:40} {column.accuracy(row)[0]:.1f}"
        draws = (drawn.draws[column.labels] * seeds)[:seeds]
        for pretrained, name in ((True, "fine-tuned"), (False, "the same from random weights")):
            found = []
            for seed, draw in enumerate(draws):
                texts = Labelled([drawn.train.texts[i] for i in draw], [drawn.train.labels[i] for i in draw])
                found.append(accuracy(folder, texts, test, recipe, seed, pretrained))
            each = ", ".join(f"{one:.1f}" for one in found)
            yield f"{column.labels:8,} {name:40} {np.mean(found):.1f} ({each})"


@pytest.mark.long
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("accelerate", "sklearn", "transformers"))), reason="needs accelerate"
)
def test_fine_tuning(benchmark, tables, tmp_path):
    """A model that has seen a few steps, on made-up texts: not figures, but all of the way to them."""
    benchmark.pedantic(lambda: None)
    corpus = made_up_texts(tmp_path).train
    model = bertfast.Bert(bertfast.BertConfig(vocab_size=corpus.vocab_size, hidden_size=32, num_attention_heads=2))
    bertfast.train(model, corpus, bertfast.TrainConfig(steps=2, batch_size=8)).save(tmp_path / "model")
    lines = [*compare(tmp_path / "model", made_up_probes(tmp_path), "40", 2, Recipe(epochs=1))]
    tables.append(lines)
    assert len(lines) == 5
    assert all(0 <= float(line.split("  ")[-1].split(" ")[-1].strip("()")) <= 100 for line in lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--labels", default="1000,all", help="how many to learn from (default: 1000,all)")
    parser.add_argument("--seeds", type=int, default=1, help="fine-tuned models for each number (default: 1)")
    given = parser.parse_args()
    if "BERTFAST_PROBES" not in os.environ:
        sys.exit("needs sst2-train.tsv and sst2-dev.tsv: set BERTFAST_PROBES to a folder with them")
    facts = origin(PACKAGES)
    versions = (f"{name} {version}" for name, version in facts["versions"].items())
    print(facts["cpu"], torch.get_num_threads(), "threads", *versions)
    for line in compare(given.model, Path(os.environ["BERTFAST_PROBES"]), given.labels, given.seeds, Recipe()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
