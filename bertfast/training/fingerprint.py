"""What a run's bits depend on: what a checkpoint says of its run, and what a resumption must share with it."""

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
from bertfast.distributed.tree_sum import one_thread
from bertfast.distributed.world import World
from bertfast.ops.product import matrix_product
from bertfast.training.setup import Setup

# These leave the weights as they are, or what they choose is told in other words: device, precision and sums.
_FREE = (
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
)
_TOLD = ("precision", "deterministic", "shards", "cuda_graph", "mlm_loss")

# Of hosts of other kinds these differ.
_HOSTS = ("kind of device", "instruction set", "product of two matrices", "threads")

# Rank 0 says these to the others once they have met.
_LOSS_FORM = "masked-LM loss"
_TWINS = "computed in plain torch"
_RANK_0S = (_LOSS_FORM, _TWINS)

_NO_OP = "no op"


def identity(setup: Setup, corpus: Corpus, loss_form: str, twins: Sequence[str] = ()) -> dict[str, Any]:
    """Name (a flag, where there is one) to value, of JSON's types: two runs with the same have the same weights.

    `twins`: the ops that are computed in plain torch because the device fails them, whose bits are not their kernels'.
    """
    config, world, dtype = setup.config, setup.world, setup.dtype
    model = dataclasses.asdict(setup.model.config)
    said: dict[str, Any] = {flag(BertConfig, name): value for name, value in model.items()}
    for name, value in dataclasses.asdict(config).items():
        if name not in _FREE + _TOLD:
            said[flag(TrainConfig, name)] = value
    cuda = world.device.type == "cuda"
    said |= {
        "corpus": corpus.fingerprint,
        "documents of the corpus": corpus.part or "all",
        "kind of device": torch.cuda.get_device_name(world.device) if cuda else "CPU",
        "instruction set": "CUDA" if cuda else f"{native.isa()}, torch's {torch.backends.cpu.get_cpu_capability()}",
        "product of two matrices": _product(world.device, dtype),
        "precision": "bf16" if dtype == torch.bfloat16 else "fp32",
        "order of sums": _order(world),
        "threads": 1 if world.deterministic else torch.get_num_threads(),  # that a product or a sum is cut for
        "bertfast": __version__,
        "torch": str(torch.__version__),
    }
    if cuda:  # a CPU has but one
        said |= {_LOSS_FORM: loss_form, _TWINS: ", ".join(twins) or _NO_OP}
    return dict(json.loads(json.dumps(said)))


def of_all_ranks(run: Mapping[str, Any], world: World, config: TrainConfig) -> dict[str, Any]:
    """The part of a run's identity that its ranks share: all of it where their sums are to have the same bits on any
    number of them, and else all but what is their host's; and not what rank 0 decides. `world`: as it was asked for,
    before that."""
    whole = world.deterministic and not config.inexact
    shared = {name: value for name, value in run.items() if (whole or name not in _HOSTS) and name not in _RANK_0S}
    if "order of sums" in shared:
        shared["order of sums"] = _order(world)
    return {**shared, "--device": world.device.type}


def of_checkpoint(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its run, in today's words."""
    if _LOSS_FORM not in run:
        return dict(run)
    form = "chunked" if run[_LOSS_FORM] == "in chunks" else run[_LOSS_FORM]
    return {_TWINS: _NO_OP, **run, _LOSS_FORM: form}


def twins_of(resumed: Mapping[str, Any] | None) -> dict[str, str]:
    """The ops that the run of a checkpoint computed in plain torch, and why one that resumes it does so, too."""
    said = _NO_OP if resumed is None else resumed.get(_TWINS, _NO_OP)
    return {} if said == _NO_OP else dict.fromkeys(said.split(", "), "as the run that is resumed did")


def _order(world: World) -> str:
    if world.deterministic:
        return f"one tree over {world.shards} shards"
    pieces = f"{world.shards} pieces"
    if world.captured:
        pieces = "one filled piece" if world.size == 1 else f"{world.size} filled pieces"
    return f"the fastest over {len(world.devices)} devices, in {pieces}"


def _product(device: torch.device, dtype: torch.dtype) -> str:
    """Digest of a product's bits: it tells processors and libraries apart whose names are the same."""
    numbers = torch.arange(1 << 16, device="cpu").mul(40503).remainder(65521).float() / 65521
    numbers = numbers.view(256, 256).to(device, dtype)
    with one_thread():
        bits = matrix_product(numbers, numbers.T).float().cpu().numpy().tobytes()
    return hashlib.blake2b(bits, digest_size=8).hexdigest()
