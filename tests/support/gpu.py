"""Marks of the tests that need a CUDA device."""

from __future__ import annotations

import pytest
import torch

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


GPU = pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])


def on_gpu(test: object) -> object:
    return pytest.mark.gpu(NEEDS_GPU(test))
