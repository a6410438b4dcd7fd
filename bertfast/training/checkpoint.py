"""Training state on disk: one safetensors file per checkpoint, written atomically in the background, verified on read.

The tensors are the model's parameters (`model.NAME`) and the optimizer's state (AdamW's `exp_avg.NAME` and
`exp_avg_sq.NAME`, Muon's `momentum.NAME`); the file's metadata holds the step and the run's fingerprint. The last
tensor, and so the end of the file, is a digest of all bytes before it, header included. Nothing is pickled, so a
checkpoint from a stranger can't run code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bertfast.errors import InputError
from bertfast.files import partial_of, sync, whole_file
from bertfast.training.fingerprint import from_checkpoint
from bertfast.training.optimizer import Optimizer

logger = logging.getLogger(__name__)

_DIGEST = "digest"
_DIGEST_SIZE = 16


class Checkpoint(NamedTuple):
    path: Path
    step: int  # completed steps
    run: dict[str, Any]  # the fingerprint of the run that wrote it
    tensors: dict[str, Tensor]


def state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, which share memory with those of `model` and `optimizer`."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        tensors.update({f"{kind}.{name}": moment for kind, moment in optimizer.state.get(parameter, {}).items()})
    return tensors


class Writer:
    """Writes the tensors `state` of the run with the fingerprint `run` into `folder`, and keeps the `keep` newest.

    `save` copies the tensors into host memory, which is reused; a thread hashes and writes them, one checkpoint at a
    time. If a write fails, a warning says so, the older checkpoints stay, and the next one is tried as usual.
    `journal`, a file that belongs to each checkpoint, is synced to disk first.
    """

    def __init__(
        self, folder: Path, keep: int, journal: Path, run: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> None:
        self._folder, self._keep, self._journal = folder, keep, journal
        self._run, self._state = json.dumps(run), state
        self._copies: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._failing = False

    def save(self, step: int) -> None:
        """Writes step-NNNNNNNN.safetensors in the background."""
        self._copy()
        self._pending = self._thread.submit(self._write_or_warn, step)

    def save_now(self, step: int) -> None:
        """Writes it before it returns. Raises InputError if the write fails."""
        self._copy()
        self._write(step)

    def tidy(self, step: int) -> None:
        """Removes all but the `keep` newest checkpoints up to `step`, and partial files left by a killed run."""
        for leftover in self._folder.glob(partial_of(self._folder / "*.safetensors").name):
            leftover.unlink()
        for old in [older for older in _paths(self._folder) if _step(older) < step][self._keep - 1 :]:
            old.unlink()

    def path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"

    def close(self) -> None:
        """Waits until pending writes are done."""
        self._thread.shutdown()

    def _copy(self) -> None:
        if self._pending is not None:
            self._pending.result()
        for name, tensor in self._state.items():
            if name not in self._copies:
                self._copies[name] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda
                )
            self._copies[name].copy_(tensor)

    def _write_or_warn(self, step: int) -> None:
        try:
            self._write(step)
            self._failing = False
        except InputError as error:
            if not self._failing:
                logger.warning("%s; training continues, and the next one will be tried", error)
            self._failing = True

    def _write(self, step: int) -> None:
        path = self.path(step)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sync(self._journal)
            _write(path, self._copies, {"step": str(step), "run": self._run})
            self.tidy(step)
        except OSError as error:
            raise InputError(f"the checkpoint {path} can't be written: {error.strerror}") from None


def newest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint in `folder`, if it holds any. Warns about damaged ones and skips them.

    Raises InputError if all are damaged.
    """
    paths = _paths(folder)
    for path in paths:
        try:
            return _load(path)
        # RecursionError: deeply nested JSON from a stranger.
        except (OSError, SafetensorError, ValueError, LookupError, RecursionError) as error:
            logger.warning("%s is damaged (%s): trying the checkpoint before it", path, error)
    if paths:
        raise InputError(f"every checkpoint in {folder} is damaged: start over with another --out")
    return None


def misfit(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer) -> str | None:
    """Why the checkpoint does not fit `model` and `optimizer`, or None if it does."""
    for name, tensor in state(model, optimizer).items():
        saved = checkpoint.tensors.get(name)
        if saved is None:
            return f"{name} is missing"
        if (saved.shape, saved.dtype) != (tensor.shape, tensor.dtype):
            return f"{name} is {tuple(saved.shape)} {saved.dtype}, not {tuple(tensor.shape)}"
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer) -> None:
    """Copies the checkpoint's tensors into `model` and `optimizer`; they must fit (see `misfit`)."""
    optimizer.count.fill_(checkpoint.step)
    for name, tensor in state(model, optimizer).items():
        tensor.copy_(checkpoint.tensors[name])


def _step(path: Path) -> int:
    """The completed steps in a checkpoint's file name; -1 for other files."""
    name = re.fullmatch(r"step-(\d{8,})\.safetensors", path.name)
    return int(name[1]) if name else -1


def _paths(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if _step(path) >= 0), key=_step, reverse=True)


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, without the library: this hashes while it writes and lets other threads compute."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header[_DIGEST] = {"dtype": "U8", "shape": [_DIGEST_SIZE], "data_offsets": [end, end + _DIGEST_SIZE]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    pieces: list[Any] = [
        len(text).to_bytes(8, "little"),
        text,
        *(tensor.view(-1).numpy() for tensor in tensors.values()),
    ]
    with whole_file(path) as partial, partial.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.write(digest.digest())


def _load(path: Path) -> Checkpoint:
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    with path.open("rb") as file:
        left = path.stat().st_size - _DIGEST_SIZE
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        if file.read() != digest.digest():
            raise ValueError("its content does not match its digest")
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in opened.keys() if name != _DIGEST}  # noqa: SIM118 (no dict)
    step, run = int(metadata["step"]), json.loads(metadata["run"])
    if step != _step(path):
        raise ValueError("its metadata is of another step")
    return Checkpoint(path, step, from_checkpoint(run), tensors)
