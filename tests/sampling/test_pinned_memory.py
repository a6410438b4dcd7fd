"""Pinning, with a stand-in for CUDA: what is registered, for how long, and what happens where CUDA refuses."""

from __future__ import annotations

import gc
import logging
import mmap
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from bertfast._native import native
from bertfast.sampling import pinned_memory
from bertfast.sampling.pinned_memory import pinned


class Cuda:
    """Notes which memory is pinned, as (address, bytes)."""

    def __init__(self) -> None:
        self.pins: list[tuple[int, int]] = []
        self.refuses = False

    def pin_read_only(self, address: int, size: int) -> None:
        if self.refuses:
            raise RuntimeError("cudaHostRegister: operation not supported")
        assert address not in dict(self.pins), "CUDA pins a page only once"
        self.pins.append((address, size))

    def unpin(self, address: int) -> None:
        self.pins.remove((address, dict(self.pins)[address]))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    monkeypatch.setattr(pinned_memory, "native", cuda)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    return cuda


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    np.arange(5000, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    return np.memmap(tmp_path / "tokens.bin", np.uint16, "r")


def test_a_mapped_file_is_pinned_where_it_lies(cuda: Cuda, mapped: np.ndarray) -> None:
    """The whole file, also for a part of it."""
    part = mapped[1000:3000]
    tensor, _owner = pinned(part)
    assert cuda.pins == [(mapped.ctypes.data, 10000)]
    assert tensor.data_ptr() == part.ctypes.data
    assert torch.equal(tensor, torch.arange(1000, 3000).to(torch.uint16))


def test_samplers_share_what_is_pinned(cuda: Cuda, mapped: np.ndarray) -> None:
    first, second = pinned(mapped), pinned(mapped[7:])
    assert len(cuda.pins) == 1
    del first
    gc.collect()
    assert len(cuda.pins) == 1
    del second
    gc.collect()
    assert cuda.pins == []
    pinned(mapped)


def test_the_file_stays_mapped_while_it_is_pinned(cuda: Cuda, tmp_path: Path) -> None:
    np.zeros(5000, np.uint16).tofile(tmp_path / "tokens.bin")
    array = np.memmap(tmp_path / "tokens.bin", np.uint16, "r")
    assert isinstance(array.base, mmap.mmap)
    mapping = weakref.ref(array.base)
    owner = pinned(array).owner
    del array
    gc.collect()
    assert mapping() is not None
    del owner
    gc.collect()
    assert mapping() is None
    assert cuda.pins == []


def test_anything_else_is_copied(cuda: Cuda) -> None:
    array = np.arange(10)
    tensor, _ = pinned(array)
    assert cuda.pins == []
    assert tensor.data_ptr() != array.ctypes.data
    assert torch.equal(tensor, torch.arange(10))


def test_where_cuda_refuses_a_copy_is_pinned(cuda: Cuda, mapped: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    cuda.refuses = True
    with caplog.at_level(logging.WARNING):
        tensor, _ = pinned(mapped)
    assert tensor.data_ptr() != mapped.ctypes.data
    assert torch.equal(tensor, torch.arange(5000).to(torch.uint16))
    assert caplog.messages == [
        "the corpus's file cannot be pinned where it is mapped (cudaHostRegister: operation not supported): each "
        "process pins a copy of its own"
    ]


def test_a_build_without_cuda_says_so() -> None:
    if native.has_cuda:
        pytest.skip("this build has CUDA kernels")
    with pytest.raises(RuntimeError, match="pin_read_only: this build of bertfast has no CUDA kernels"):
        native.pin_read_only(0, 0)
