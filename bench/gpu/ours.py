"""Our training, end to end, by `bertfast.train`: sampling, step, optimizer and the record of losses."""

from __future__ import annotations

import dataclasses
import time

from support.messages import listening
from workloads import Workload

from bertfast import Bert, train
from bertfast.data.corpus import Corpus
from bertfast.distributed.devices import choose_devices
from bertfast.training.device_check.verdict import cached


class Ours:
    """A round's time is that of a long run minus that of a short one with the same first batches.

    So the setup (moving the model to the device, capturing graphs), the same for both, is not counted.
    """

    def __init__(self, workload: Workload, corpus: Corpus) -> None:
        self._workload, self._corpus = workload, corpus
        devices = choose_devices(workload.train)
        # An earlier stage has checked the device. Without its verdict a run would check it, in its measured time.
        self._is_checked = cached(devices[0], len(devices)) is not None
        self._model = Bert(workload.model)
        self.messages: list[str] = []
        """The run's log messages about device, precision and kernels."""

    def train(self, steps: int, seed: int = 0) -> float:
        """Seconds."""
        config = dataclasses.replace(self._workload.train, steps=steps, seed=seed, check=self._is_checked)
        self.messages.clear()
        started = time.perf_counter()
        with listening(self.messages.append):
            train(self._model, self._corpus, config)
        return time.perf_counter() - started

    def seconds_per_step(self, number: int) -> float:
        """Each round has its own batches, since their sizes decide which graphs are captured when."""
        short, steps = self._workload.warm_up, self._workload.steps
        return (self.train(short + steps, seed=number) - self.train(short, seed=number)) / steps
