"""What a model's vectors are held to while it trains on: those of the model that it started from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bertfast.model import Bert, mean_vectors
from bertfast.sampling.batch import PackedBatch


class Teacher:
    """A copy of a model that does not learn, on one device."""

    def __init__(self, model: Bert, device: torch.device) -> None:
        self._model = copy.deepcopy(model).requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def vectors(self, batch: PackedBatch, dtype: torch.dtype) -> Tensor:
        """(examples, H) float32: the examples' mean vectors, of their text as it was before it was masked."""
        unmasked = batch.input_ids.index_copy(0, batch.masked_positions, batch.labels)
        return mean_vectors(self._model.hidden_states(batch._replace(input_ids=unmasked), dtype), batch)
