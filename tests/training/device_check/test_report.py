"""What a report says of the machine, and its table."""

from __future__ import annotations

import torch
from support.small_run import CPU

from bertfast import __version__, ops
from bertfast._native import native
from bertfast.training.device_check.report import machine, table


def test_a_machine_without_a_gpu():
    facts = machine([CPU])
    assert facts["bertfast"] == __version__
    assert facts["torch"].split()[0] == torch.__version__
    assert facts["CPU"] == f"{native.isa()}, {torch.get_num_threads()} threads"
    assert facts["kernels"] == f"native ({native.isa()})"
    assert not {"driver", "cuda:0"} & facts.keys()
    with ops.use_twins(["adam"]):
        assert machine([CPU])["kernels"].endswith(" but for adam")


def test_a_table():
    rows = [("check", "status", "why"), ("bias_gelu", "passed", ""), ("adam", "not checked", "no memory is left")]
    assert table(rows).split("\n") == [
        "check      status       why",
        "bias_gelu  passed",
        "adam       not checked  no memory is left",
    ]
    assert table([("one",), ("another",)]) == "one\nanother"
    assert table(iter([])) == ""
