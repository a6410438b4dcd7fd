"""How ranks join; test_elastic has them as processes."""

import datetime
import json
import signal

import pytest
import torch
from support.small_run import CPU

from bertfast.distributed import process_group
from bertfast.distributed.world import World
from bertfast.errors import InputError, ProcessLost, Stopped


def test_a_rank_that_would_compute_otherwise_is_refused(monkeypatch):
    class Peers:
        def arrive(self, run):
            return None, json.dumps({"precision": "bf16", "--lr": 1.0})

    monkeypatch.setattr(process_group, "peers", Peers)
    with (
        pytest.raises(InputError, match=r"rank 1 would not compute the same as rank 0 .*: precision: bf16 -> fp32$"),
        process_group.joined(World(1, 2, [CPU] * 2, [CPU], True, 8), {"precision": "fp32", "--lr": 1.0}, 5),
    ):
        pass


@pytest.fixture
def group(monkeypatch):
    """The options that a group is created with, and whether it is destroyed. There is no real group."""
    made = {}

    class Peers:
        def arrive(self, run):
            return "the store", run

        def lost(self):
            return "lost rank 0"

    monkeypatch.setattr(process_group, "peers", Peers)
    monkeypatch.setattr(process_group.dist, "init_process_group", lambda *backend, **options: made.update(options))
    monkeypatch.setattr(process_group.dist, "is_initialized", lambda: bool(made))
    monkeypatch.setattr(process_group.dist, "destroy_process_group", lambda: made.update(destroyed=True))
    return made


@pytest.mark.parametrize("device", [CPU, torch.device("cuda", 1)])
@pytest.mark.parametrize(
    ("end", "raised", "alone"),
    [
        (None, None, False),
        (InputError("no number"), InputError, False),
        (Stopped(signal.SIGTERM), Stopped, False),
        (torch.OutOfMemoryError(), torch.OutOfMemoryError, True),
        (ZeroDivisionError(), ZeroDivisionError, True),
        (KeyboardInterrupt(), KeyboardInterrupt, True),
        (torch.distributed.DistBackendError(), ProcessLost, None),
    ],
)
def test_a_rank_that_ends_alone_does_not_wait(group, device, end, raised, alone):
    """NCCL's teardown would wait for the others. After a loss, gloo's connections are broken, too."""
    found = None
    try:
        with process_group.joined(World(1, 2, [device] * 2, [device], False, 2), {}, 5):
            if end is not None:
                raise end
    except BaseException as error:
        found = type(error)
    assert found == raised
    assert ("destroyed" in group) is (alone is False or (alone is True and device == CPU))


@pytest.mark.parametrize("device", [CPU, torch.device("cuda", 1)])
def test_the_group_gets_the_timeout_and_nccl_the_ranks_device(group, device):
    with process_group.joined(World(1, 2, [device] * 2, [device], False, 2), {}, 5):
        assert group["timeout"] == datetime.timedelta(seconds=5)
        assert group["device_id"] == (None if device == CPU else device)
