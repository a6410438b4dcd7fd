"""Training state on disk: one safetensors file a checkpoint, written atomically, verified when it is read.

The tensors are the model's parameters (`model.NAME`) and Adam's state (`exp_avg.NAME`, `exp_avg_sq.NAME`); the file's
metadata holds the step, what the run was and a digest of the tensors. Nothing is pickled, so that a checkpoint from a
stranger can run no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bertfast.errors import InputError
from bertfast.files import save_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq")
_KEEP = 2  # the newest one, and the one before in case the newest is damaged


class Checkpoint(NamedTuple):
    path: Path
    step: int  # steps done
    run: dict[str, Any]  # what the run was, as it was given to `save`
    tensors: dict[str, Tensor]


def save(folder: Path, step: int, run: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Writes `folder`/step-NNNNNNNN.safetensors, and removes those before it but for the last."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach().cpu().contiguous()
        state = optimizer.state.get(parameter, {})
        tensors.update({f"{moment}.{name}": state[moment].cpu() for moment in _MOMENTS if moment in state})
    metadata = {"step": str(step), "run": json.dumps(run), "digest": _digest(tensors)}

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    for leftover in folder.glob("*.partial.*"):  # of a run that was killed while it wrote
        leftover.unlink()
    save_tensors(tensors, path, metadata)
    for old in [older for older in _paths(folder) if older < path][_KEEP - 1 :]:
        old.unlink()
    return path


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, if it holds any; damaged ones are named through `say` and passed over.

    Raises InputError where all are damaged.
    """
    paths = _paths(folder)
    for path in paths:
        try:
            return _load(path)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            say(f"{path} is damaged ({error}); trying the checkpoint before it")
    if paths:
        raise InputError(f"every checkpoint in {folder} is damaged: remove that folder to start the run anew")
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts the checkpoint's tensors into `model` and `optimizer`. Raises InputError where they are another model's."""
    for name, parameter in model.named_parameters():
        saved = checkpoint.tensors.get(f"model.{name}")
        if saved is None or saved.shape != parameter.shape:
            raise InputError(
                f"{checkpoint.path} is a checkpoint of another model ({name} is "
                f"{'missing' if saved is None else tuple(saved.shape)}, not {tuple(parameter.shape)}): "
                "give the options of the run that wrote it, or another --out"
            )
        with torch.no_grad():
            parameter.copy_(saved)
        if f"exp_avg.{name}" in checkpoint.tensors:
            moments = {moment: checkpoint.tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            state = {"step": torch.tensor(float(checkpoint.step)), **moments}
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}


def _paths(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    return sorted(folder.glob("step-????????.safetensors"), reverse=True)


def _load(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    if metadata["digest"] != _digest(tensors):
        raise ValueError("its digest does not match its tensors")
    return Checkpoint(path, int(metadata["step"]), json.loads(metadata["run"]), tensors)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
