"""Averages of a model's weights before and after training: probes choose how much of the change is kept.

Training on one kind of text makes a model forget others. An average of the weights is often better than both ends
(WiSE-FT, Wortsman et al., 2022).
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertfast.config import CorpusConfig, ProbeConfig
from bertfast.data.readers.labelled import read_labelled
from bertfast.data.readers.scored_pairs import ScoredPairs, read_scored_pairs
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.world import World
from bertfast.hub.transformers import Pretrained
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.classification import compare_labels
from bertfast.inference.probe.draws import Drawn, train_and_test
from bertfast.inference.probe.features import require_scikit_learn
from bertfast.inference.probe.similarity import Correlations, check_pairs, compare_similarity
from bertfast.inference.probe.verdict import Column
from bertfast.reporting.average import Average, Judged
from bertfast.reporting.figure import Figure, table
from bertfast.reporting.run_info import RunInfo
from bertfast.training.evaluation import HeldOut, evaluate
from bertfast.training.run import Run
from bertfast.training.signals import noted_signals

logger = logging.getLogger(__name__)

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The averages start + share (trained - start) that are compared."""
MOST_LOST = 1.0
"""The points of similarity that a share may be below the start."""
_LABELS = 1000  # to learn from, or as many as there are

_CPU = torch.device("cpu")


class Judge:
    """Chooses the share by a user's labelled texts, scored pairs, or both.

    Create it before the run, so that errors in the files are reported at once. It computes on the CPU, where weights
    give the same vectors as in `python -m bertfast.probe`.
    """

    def __init__(
        self, start: Pretrained, vectors: Mapping[str, Any], labels: str | None, similarity: str | None
    ) -> None:
        """`vectors`: settings of EncodeConfig, those of the model's vectors in the folder that the run writes.

        `labels` and `similarity` name files. Raises InputError without scikit-learn, and for unusable files.
        """
        require_scikit_learn()
        self._encoder = Encoder(copy.deepcopy(start.model), start.tokenizer)
        self._given = set(start.given())
        self._config = ProbeConfig(**vectors)
        self._drawn: Drawn | None = None
        if labels is not None:
            train, test = train_and_test(read_labelled(labels, None, CorpusConfig.delimiter))
            count = min(len(train.texts), max(_LABELS, 2 * len(set(train.labels))))
            self._drawn = Drawn.of(train, test, dataclasses.replace(self._config, labels_each=str(count)))
        self._pairs: ScoredPairs | None = None
        if similarity is not None:
            self._pairs = read_scored_pairs(similarity)
            check_pairs(self._pairs)

    def averaged(self, run: Run) -> Run:
        """The run with the chosen weights in its model. Logs the figures and the reason."""
        trained = {name: each.detach().to(_CPU, copy=True) for name, each in run.model.named_parameters()}
        start = {
            name: each.detach().clone() for name, each in self._encoder.model.named_parameters() if name in self._given
        }
        logger.info("comparing averages of the weights before and after training")

        def encoders() -> Iterator[tuple[str, Encoder]]:
            for share in SHARES:
                _load(self._encoder.model, average(start, trained, share))
                yield _row(share), self._encoder

        labels = compare_labels(encoders(), self._drawn, self._config) if self._drawn else None
        similarity = compare_similarity(encoders(), self._pairs, self._config) if self._pairs else None
        losses = _held_out_losses(run, encoders())
        share, reason = choose(labels, similarity)
        judged = tuple(
            Judged(
                each,
                None if labels is None else labels.accuracy(_row(each)),
                None if similarity is None else similarity.figure(_row(each)),
                losses.get(_row(each)),
            )
            for each in SHARES
        )
        chosen = Average(share, judged, labels.labels if labels else 0, reason)
        meaning = "start + share (trained - start); accuracy in % and Spearman correlation x 100, ± two standard errors"
        for line in (meaning, *table(chosen.rows()), reason):
            logger.info(line)
        _load(run.model, average(start, trained, share))
        return dataclasses.replace(run, average=chosen)


def write_average(run: Run, judge: Judge, folder: Path) -> Run:
    """Replaces the trained model in the run's folder by the average that `judge` chooses. Checkpoints stay."""
    run = judge.averaged(run)
    with noted_signals():
        run.save(folder)
        assert run.average is not None
        dataclasses.replace(RunInfo.read(folder), average=dataclasses.asdict(run.average)).write(folder)
    return run


def average(start: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """start + share (trained - start), exactly one of them for 0 and 1; `trained` where `start` has no such weight."""
    return {name: start[name].lerp(each, share) if name in start else each for name, each in trained.items()}


def choose(labels: Column | None, similarity: Correlations | None) -> tuple[float, str]:
    """The share to write, and the reason.

    It is the best share by the labels, or by similarity if there are no labels. To qualify, a share must be above the
    start there by more than two standard errors, and at most `MOST_LOST` points below it in similarity. 0 if none does.
    """
    judge, probe = (labels, "with the labels") if labels else (similarity, "in similarity")
    assert judge is not None
    gains: dict[float, Figure] = {}
    for share in SHARES[1:]:
        gain = judge.gap(_row(share), _row(0))
        keeps = similarity is None or similarity.gap(_row(share), _row(0)).value >= -MOST_LOST
        if keeps and gain.certainly_positive:
            gains[share] = gain
    beware = "The share is chosen on these texts, so its figures flatter it."
    if not gains:
        condition = f" and loses at most {MOST_LOST:g} point of similarity" if labels and similarity else ""
        kept = "Share 0 is written, which keeps what the model came with"
        return 0.0, f"{kept}: no other is certainly better {probe}{condition}."
    share = max(gains, key=lambda each: gains[each].value)
    return share, f"Share {share:g} is written: {probe} it is {gains[share].beside('the model as it came')}. {beware}"


def _row(share: float) -> str:
    return f"share {share:g}"


@torch.no_grad()
def _load(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])


def _held_out_losses(run: Run, encoders: Iterator[tuple[str, Encoder]]) -> dict[str, float]:
    """Each encoder's masked-LM loss on the run's held-out text; empty without such a text."""
    if run.held_out is None:
        return {}
    held_out, dtype = HeldOut.of(run.held_out, run.config, _CPU), choose_precision(run.config, _CPU)
    world = World(0, 1, [_CPU], [_CPU], deterministic=False, shards=1)
    return {name: evaluate(encoder.model, held_out, 0, dtype, world).eval_mlm_loss for name, encoder in encoders}
