"""Which worlds are refused."""

from __future__ import annotations

import dataclasses

import pytest
from support.small_run import CONFIG, CPU

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
        (2, 2, "2 shards leave threads idle"),
    ],
)
def test_a_run_that_is_not_deterministic_says_why(two_threads, workers, shards, why):
    config = dataclasses.replace(CONFIG, shards=shards)
    world = make_world(config, [CPU] * workers, [CPU])
    assert not world.deterministic
    assert why_not_deterministic(config, world) == (
        f"not deterministic over workers and threads, since {why} (--deterministic, --shards)"
    )
