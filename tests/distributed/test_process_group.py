"""How ranks join; test_elastic has them as processes."""

import json

import pytest
import torch

from bertfast.distributed import process_group
from bertfast.distributed.world import World
from bertfast.errors import InputError

CPU = torch.device("cpu")


def test_a_rank_that_would_compute_otherwise_is_refused(monkeypatch):
    class Peers:
        def arrive(self, run):
            return None, json.dumps({"precision": "bf16", "--lr": 1.0})

    monkeypatch.setattr(process_group, "peers", Peers)
    with (
        pytest.raises(InputError, match=r"rank 1 would compute otherwise than rank 0 .*: precision: bf16 -> fp32$"),
        process_group.joined(World(1, 2, [CPU] * 2, [CPU], True, 8), {"precision": "fp32", "--lr": 1.0}, 5),
    ):
        pass
