"""Which worlds are refused."""

from __future__ import annotations

import dataclasses

import pytest
from support.small_run import CONFIG, CPU
from support.torch_threads import torch_threads

from bertfast.distributed.world import make_world, why_not_deterministic
from bertfast.errors import InputError


def test_replicas_are_not_compiled():
    with pytest.raises(InputError, match="--compile: DataParallel's replicas are not compiled"):
        make_world(dataclasses.replace(CONFIG, compile=True), [CPU] * 2, [CPU] * 2)


@pytest.mark.parametrize(
    ("workers", "shards", "why"),
    [
        (1, 0, "shards of less than 8,192 tokens cost more than 5% of a step's time"),
        (3, 0, "3 workers can't share shards evenly"),
        (1, 3, "--shards must be a power of two, not 3"),
        (4, 2, "4 workers can't share 2 shards evenly: start a power of two, 2 at most"),
        (2, 2, "there are more threads than shards (2)"),
    ],
)
def test_a_run_that_is_not_deterministic_says_why(two_threads, workers, shards, why):
    config = dataclasses.replace(CONFIG, shards=shards)
    world = make_world(config, [CPU] * workers, [CPU])
    assert not world.deterministic
    assert why_not_deterministic(config, world) == (
        f"not deterministic over workers and threads, since {why} (--deterministic, --shards)"
    )


@pytest.mark.parametrize(
    ("threads", "workers", "batch_size", "why"),
    [
        (16, 1, 2048, "there are more threads than shards (8)"),
        (1, 16, 2048, "16 workers can't share 8 shards evenly: start a power of two, 8 at most"),
        (8, 1, 4, "there are more threads than shards (4)"),
    ],
)
def test_the_reason_is_not_the_shards_length_where_they_are_long(threads, workers, batch_size, why):
    config = dataclasses.replace(CONFIG, batch_size=batch_size, max_len=1 << 15)
    with torch_threads(threads):
        world = make_world(config, [CPU] * workers, [CPU])
        assert not world.deterministic
        assert f"since {why} (" in why_not_deterministic(config, world)


def test_pieces_are_shared_evenly():
    config = dataclasses.replace(CONFIG, deterministic=False, shards=4)
    assert make_world(config, [CPU] * 2, [CPU]).shards == 4
    with pytest.raises(InputError, match="2 devices can't share --shards 3 evenly: give a multiple of their number"):
        make_world(dataclasses.replace(config, shards=3), [CPU] * 2, [CPU])
