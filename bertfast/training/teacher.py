"""What a model's vectors are held to while it trains on: those of the model that it started from."""

from __future__ import annotations

import copy

import torch

from bertfast.model import Bert, Kept, pooled_vectors
from bertfast.ops.linear import keep_copies
from bertfast.sampling.batch import PackedBatch


class Teacher:
    """A copy of a model that does not learn, on one device. It computes in `dtype`."""

    def __init__(self, model: Bert, pooling: str, device: torch.device, dtype: torch.dtype) -> None:
        self._pooling, self._dtype = pooling, dtype
        self._model = copy.deepcopy(model).requires_grad_(False).eval().to(device)
        keep_copies(self._model.parameters(), dtype)

    @torch.no_grad()
    def vectors(self, batch: PackedBatch) -> Kept:
        """The examples' vectors, of their text as it was before it was masked."""
        unmasked = batch.input_ids.index_copy(0, batch.masked_positions, batch.labels)
        hidden_states = self._model.hidden_states(batch._replace(input_ids=unmasked), self._dtype)
        return Kept(pooled_vectors(hidden_states, batch, self._pooling), self._pooling)
