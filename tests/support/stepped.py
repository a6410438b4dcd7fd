"""The fused masked-LM loss's kernels without a GPU: their threads stepped on the host, behind the same entries."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
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


class SteppedFusedLoss:
    """Stands in for `native.fused_mlm_loss` and `native.fused_mlm_loss_backward`, of tensors on the CPU."""

    def __init__(self, folder: Path, by_warpgroups: bool) -> None:
        compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
        if compiler is None:
            pytest.skip("needs a C++ compiler")
        library = folder / "stepped_fused_mlm_loss.so"
        if not library.exists():
            flags = ["-std=c++17", "-O2", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'cpp'}"]
            source = ROOT / "tests" / "cpp" / f"{library.stem}.cpp"
            subprocess.run([compiler, *flags, source, "-o", library], check=True)
        self._library, self._by_warpgroups = ctypes.CDLL(str(library)), ctypes.c_bool(by_warpgroups)
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
