"""A run in one process, which runs in several processes are compared with."""

from __future__ import annotations

import importlib

import pytest
from support.small_run import made_up_text
from support.torchrun import TINY

STEPS = 12

pretrain = importlib.import_module("bertfast.pretrain").main


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the arguments of a run in one process: dropout is on, only the masked-LM head learns in the first
    three steps, and the last step has longer examples than the others."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "texts.txt").write_text(made_up_text(0, 60))
    patch = pytest.MonkeyPatch()
    patch.setenv("BERTFAST_CACHE", str(folder / "cache"))
    arguments = [
        "--corpus",
        folder / "texts.txt",
        "--steps",
        STEPS,
        "--dropout",
        0.2,
        "--short-len",
        16,
        "--deterministic",
        "--start-from",
        "text",
    ]
    arguments += ["--head-first", 0.25]
    arguments += ["--optimizer", "muon", "--weight-decay", 0.1]  # and AdamW for all but the layers' matrices
    assert pretrain([str(word) for word in [*arguments, "--out", folder / "out", *TINY]]) == 0
    yield folder / "out", arguments
    patch.undo()
