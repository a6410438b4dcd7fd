"""A run's fingerprint: everything its bits depend on. A checkpoint stores it, and a resumed run must match it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bertfast._native import native
from bertfast._version import __version__
from bertfast.config import BertConfig, TrainConfig, flag
from bertfast.data.corpus import Corpus
from bertfast.distributed.threads import one_thread
from bertfast.distributed.world import World, precision_name
from bertfast.ops.product import matrix_product
from bertfast.training.setup import Setup

# Settings that do not affect the weights, and settings that are recorded by what they resolve to.
_IRRELEVANT = (
    "device",
    "gpus",
    "parallel",
    "timeout",
    "tensorboard",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "inexact",
    "check",
    "epochs",  # `steps` has their number
)
_RESOLVED = ("precision", "deterministic", "shards", "cuda_graph", "mlm_loss", "init_weights")

# Entries that differ between kinds of hosts.
_HOSTS = ("kind of device", "instruction set", "product of two matrices", "threads")

# Rank 0 broadcasts these once the process group exists.
LOSS_FORM = "masked-LM loss"
_TWINS = "computed in plain torch"
_CHOSEN_BY_RANK_0 = (LOSS_FORM, _TWINS)

_NO_OP = "no op"


def identity(setup: Setup, corpus: Corpus, loss_form: str, twins: Sequence[str] = ()) -> dict[str, Any]:
    """The fingerprint: name (a flag, if there is one) to JSON value. Runs with equal fingerprints have equal weights.

    `twins`: the ops that run in plain torch because they fail on the device; their bits differ from the kernels'.
    """
    config, world, dtype = setup.config, setup.world, setup.dtype
    model = dataclasses.asdict(setup.model.config)
    values: dict[str, Any] = {flag(BertConfig, name): value for name, value in model.items()}
    for name, value in dataclasses.asdict(config).items():
        if name not in _IRRELEVANT + _RESOLVED:
            values[flag(TrainConfig, name)] = value
    if config.optimizer != "muon":
        del values[flag(TrainConfig, "muon_lr")]
    for chosen, detail in (("keep_vectors", "kept_pooling"), ("head_first", "head_lr")):
        if not getattr(config, chosen):
            del values[flag(TrainConfig, chosen)], values[flag(TrainConfig, detail)]
    if config.init_weights:
        values["weights of --init"] = config.init_weights
    if config.minutes:  # a clock, not a setting, determines the number of steps
        del values[flag(TrainConfig, "steps")]
    cuda = world.device.type == "cuda"
    values |= {
        "corpus": corpus.fingerprint,
        "documents of the corpus": corpus.part or "all",
        "kind of device": torch.cuda.get_device_name(world.device) if cuda else "CPU",
        "instruction set": "CUDA" if cuda else f"{native.isa()}, torch's {torch.backends.cpu.get_cpu_capability()}",
        "product of two matrices": _product(world.device, dtype),
        "precision": precision_name(dtype),
        "order of sums": _order(world),
        "threads": 1 if world.deterministic else torch.get_num_threads(),  # that share a product or a sum
        "bertfast": __version__,
        "torch": str(torch.__version__),
    }
    if cuda:  # a CPU has only one form
        values |= {LOSS_FORM: loss_form, _TWINS: ", ".join(twins) or _NO_OP}
    return dict(json.loads(json.dumps(values)))


def shared_by_ranks(run: Mapping[str, Any], world: World, config: TrainConfig) -> dict[str, Any]:
    """The part of a run's fingerprint that all ranks share.

    In a deterministic run without --inexact it is the whole fingerprint, otherwise it lacks the hosts' entries. What
    rank 0 decides is never part of it. `world` is the requested one, before that decision.
    """
    whole = world.deterministic and not config.inexact
    shared = {
        name: value for name, value in run.items() if (whole or name not in _HOSTS) and name not in _CHOSEN_BY_RANK_0
    }
    return {**shared, "order of sums": _order(world), "--device": world.device.type}


def from_checkpoint(run: Any) -> dict[str, Any]:
    """A checkpoint's fingerprint, with the entries and words of older versions converted.

    Raises ValueError if it is none.
    """
    types = {flag(TrainConfig, "steps"): int, _TWINS: str}
    if not isinstance(run, dict) or any(not isinstance(run[name], types[name]) for name in types.keys() & run.keys()):
        raise ValueError("its metadata is not a run's")
    found = {"--optimizer": "adamw", "--weight-decay": 0.0, **run}  # what older versions had
    if LOSS_FORM not in found:
        return found
    form = "chunked" if found[LOSS_FORM] == "in chunks" else found[LOSS_FORM]
    return {_TWINS: _NO_OP, **found, LOSS_FORM: form}


def twins_of(resumed: Mapping[str, Any] | None) -> list[str]:
    """The ops that the resumed run computed in plain torch."""
    names: str = _NO_OP if resumed is None else resumed.get(_TWINS, _NO_OP)
    return [] if names == _NO_OP else names.split(", ")


def _order(world: World) -> str:
    if world.deterministic:
        return f"one tree over {world.shards} shards"
    pieces = f"{world.shards} pieces"
    if world.captured:
        pieces = "one filled piece" if world.size == 1 else f"{world.size} filled pieces"
    return f"the fastest over {len(world.devices)} devices, in {pieces}"


def _product(device: torch.device, dtype: torch.dtype) -> str:
    """The digest of a product's bits: it distinguishes processors and libraries with the same name."""
    numbers = torch.arange(1 << 16, device="cpu").mul(40503).remainder(65521).float() / 65521
    numbers = numbers.view(256, 256).to(device, dtype)
    with one_thread():
        bits = matrix_product(numbers, numbers.T).float().cpu().numpy().tobytes()
    return hashlib.blake2b(bits, digest_size=8).hexdigest()
