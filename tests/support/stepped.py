"""The fused masked-LM loss's kernels without a GPU: their threads stepped on the host, behind the same entries."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from torch import Tensor

from bertfast._native import native

ROOT = Path(__file__).parents[2]


class Inputs(ctypes.Structure):
    """FusedMlmLoss of csrc/cuda/fused_mlm_loss.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("rows", "positions", "decoder", "bias", "labels", "weights")] + [
        (name, ctypes.c_int64) for name in ("sources", "count", "hidden", "padded_vocab", "vocab_size", "splits")
    ]


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@functools.cache
def _library() -> Path:
    """Kept from run to run, under the digest of all that is compiled and how."""
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'cpp'}"]
    command = [compiler, *flags, ROOT / "tests" / "cpp" / "stepped_fused_mlm_loss.cpp"]
    compiled = subprocess.run([*command, "-E"], stdout=subprocess.PIPE, check=True).stdout
    digest = hashlib.sha256(repr(command).encode() + compiled).hexdigest()
    library = ROOT / "build" / "stepped" / f"{digest}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # as other processes may look for it
            subprocess.run([*command, "-o", f"{folder}/whole.so"], check=True)
            Path(folder, "whole.so").replace(library)
    return library


class SteppedFusedLoss:
    """Stands in for `native.fused_mlm_loss` and `native.fused_mlm_loss_backward`, of tensors on the CPU."""

    def __init__(self, by_warpgroups: bool) -> None:
        self._library, self._by_warpgroups = ctypes.CDLL(str(_library())), ctypes.c_bool(by_warpgroups)
        self._entries = {name: getattr(native, name) for name in ("fused_mlm_loss", "fused_mlm_loss_backward")}

    def fused_mlm_loss(self, *arguments: Tensor) -> None:
        self._step("fused_mlm_loss", arguments, arguments[7])

    def fused_mlm_loss_backward(self, *arguments: Tensor) -> None:
        self._step("fused_mlm_loss_backward", arguments, arguments[9])

    def _step(self, name: str, arguments: tuple[Tensor, ...], partial: Tensor) -> None:
        with pytest.raises(ValueError, match="must be on a CUDA device"):  # and nothing else is wrong with them
            self._entries[name](*arguments)
        rows, positions, decoder, bias, labels, weights, vocab_size, *rest = arguments
        tensors = map(address, (rows, positions, decoder, bias, labels, weights))
        sizes = (len(rows), len(labels), rows.shape[1], len(decoder), vocab_size, len(partial))
        inputs = Inputs(*tensors, *sizes)
        getattr(self._library, f"step_{name}")(self._by_warpgroups, ctypes.byref(inputs), *map(address, rest))
