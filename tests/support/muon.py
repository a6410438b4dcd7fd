"""Muon in float64, by way of singular values: the polynomials are applied to them, not to matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from bertfast.training import muon


def brought_near_1(singular_values: Tensor) -> Tensor:
    """Three steps with Jordan's coefficients."""
    for a, b, c in ((3.4445, -4.7750, 2.0315),) * 3:
        singular_values = a * singular_values + b * singular_values**3 + c * singular_values**5
    return singular_values


def orthogonalized(matrix: Tensor) -> Tensor:
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u * brought_near_1(s / (s**4).sum() ** 0.25) @ vt


def trained(weight: Tensor, gradients: Sequence[Tensor], rate: float, weight_decay: float) -> Tensor:
    """A matrix after a step with each of the gradients."""
    weight, average = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    rows, columns = weight.shape
    for gradient in gradients:
        average = 0.95 * average + 0.05 * gradient.double()
        update = orthogonalized(0.95 * average + 0.05 * gradient.double())
        weight = weight - rate * weight_decay * weight - rate * math.sqrt(max(1, rows / columns)) * update
    return weight


def as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """Matrices of one shape share a product in float32, too."""
    patch.setattr(muon, "multiplied_by_kernel", lambda device, dtype: False)
