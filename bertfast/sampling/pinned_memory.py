"""Host memory that a GPU's kernels read over the bus.

A memory-mapped file is pinned where it lies, so that all processes of a host share one copy of it. Everything else is
copied to pinned memory.
"""

from __future__ import annotations

import logging
import mmap
import warnings
import weakref
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertfast._native import native

logger = logging.getLogger(__name__)


class Pinned(NamedTuple):
    tensor: Tensor
    owner: object
    """Keeps the tensor's memory pinned. To be kept as long as kernels may read the tensor."""


class _PinnedMapping:
    """A memory-mapped file that is pinned until this object is freed. Raises RuntimeError where CUDA refuses."""

    def __init__(self, mapping: mmap.mmap) -> None:
        contents = np.frombuffer(mapping, np.uint8)
        native.pin_read_only(contents.ctypes.data, len(contents))
        # It holds the mapping, which must outlive the pinning. When the process ends, the driver does it.
        weakref.finalize(self, _unpin, contents).atexit = False


# By address: two samplers may read one corpus, and CUDA pins a page only once.
_pinned_mappings: weakref.WeakValueDictionary[int, _PinnedMapping] = weakref.WeakValueDictionary()


def pinned(array: npt.NDArray[Any]) -> Pinned:
    """The array as a pinned tensor. If its file cannot be pinned where it lies, a warning says so, and it is copied."""
    mapping = _mapping_of(array)
    if mapping is not None:
        address = np.frombuffer(mapping, np.uint8).ctypes.data
        try:
            owner = _pinned_mappings.get(address) or _PinnedMapping(mapping)
            _pinned_mappings[address] = owner
            return Pinned(as_tensor(array), owner)
        except RuntimeError as error:
            logger.warning(
                "the corpus's file cannot be pinned where it is mapped (%s): each process pins a copy of its own", error
            )
    return Pinned(as_tensor(array).pin_memory(), None)


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """The array as a tensor that shares its memory: read-only, though torch can't express that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _mapping_of(array: npt.NDArray[Any]) -> mmap.mmap | None:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None


def _unpin(contents: npt.NDArray[np.uint8]) -> None:
    native.unpin(contents.ctypes.data)
