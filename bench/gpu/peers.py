"""The peers' training of the same model on the same examples. Batches are made beforehand, so loading takes no time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from peer_steps import (
    notebook_batch,
    notebook_model,
    notebook_step,
    transformers_batch,
    transformers_model,
    transformers_step,
)
from timing import seconds
from workloads import Workload

from bertfast.data.corpus import Corpus
from bertfast.sampling.batch import PaddedBatch
from bertfast.sampling.sampler import Sampler

BATCHES = 8


class Peer:
    """Trains by `step`, whose losses are only read at the end of a round."""

    def __init__(self, workload: Workload, step: Callable[[], object]) -> None:
        self._workload, self._step = workload, step

    def train(self, steps: int) -> float:
        """Seconds."""
        return steps * seconds(self._step, self._workload.train.device, steps)

    def seconds_per_step(self, number: int) -> float:
        return self.train(self._workload.peer_steps) / self._workload.peer_steps


def batches(workload: Workload, corpus: Corpus) -> list[PaddedBatch]:
    """On the device."""
    train = workload.train
    sampler = Sampler(corpus, train)
    drawn = (sampler.padded(number * train.batch_size, train.batch_size) for number in range(BATCHES))
    return [PaddedBatch(*(field.to(train.device) for field in batch)) for batch in drawn]


def notebook(workload: Workload, corpus: Corpus) -> Peer:
    """In fp32. Raises ImportError without `d2l`."""
    made = [notebook_batch(batch) for batch in batches(workload, corpus)]
    net = notebook_model(workload.model, workload.train.device)
    return Peer(workload, notebook_step(net, itertools.cycle(made)))


def transformers_compiled(workload: Workload, corpus: Corpus) -> Peer:
    """At its best: bf16, compiled. Raises ImportError without transformers."""
    return _transformers(workload, corpus, compiled=True)


def transformers_eager(workload: Workload, corpus: Corpus) -> Peer:
    """The same, not compiled."""
    return _transformers(workload, corpus, compiled=False)


def _transformers(workload: Workload, corpus: Corpus, compiled: bool) -> Peer:
    made = [transformers_batch(batch) for batch in batches(workload, corpus)]
    model = transformers_model(workload.model, workload.train.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.train.lr, fused=True)
    return Peer(workload, transformers_step(model, itertools.cycle(made), optimizer, torch.bfloat16, compiled))
